"""How good the renderings are: figures, baselines, published protocols, reports. Import the module you need."""
