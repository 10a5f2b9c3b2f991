"""What pages are made of: words, numbers, forms, dates, charts and downloads."""
