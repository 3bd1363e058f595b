"""From a recording's two channels to who said what when."""
