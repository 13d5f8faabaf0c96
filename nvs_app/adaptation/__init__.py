"""Sharper on request: some weights of the network optimised on a scene's own context views."""
