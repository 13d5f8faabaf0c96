"""What training needs beside the network: captures as people make them, losses of the detail head."""
