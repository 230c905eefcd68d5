"""What people look at: the table, the progress display, figures and the page that holds them."""
