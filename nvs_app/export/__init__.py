"""Geometry out: what a scene's depth says, as points, Gaussian splats and meshes that other programs open."""
