"""What is done with the network: rendering, measuring, training. Import the module you need; this file imports none."""
