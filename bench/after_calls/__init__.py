"""What is done after calls, and a database that goes away meanwhile: real processes, a Postgres of their own."""
