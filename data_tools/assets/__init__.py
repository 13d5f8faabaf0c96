"""3D assets (GLB, glTF, OBJ, Objaverse uids) -> rendered scenes: `python -m data_tools objaverse INPUT... OUT`."""
