"""Parts of the benchmark that need no load: virtual time, the demo, the database driver, what keeping costs."""
