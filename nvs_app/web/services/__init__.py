"""What the page offers, without its layout and its socket. Import the module you need."""
