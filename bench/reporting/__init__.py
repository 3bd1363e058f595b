"""What a run showed: its figures, as rows, tables, pictures and JSON lines."""
