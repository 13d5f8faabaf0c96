"""The detail head: sharp images from the photos themselves, found through the fast weights.

features.py    image features of photos; a map and a depth prior from the tokens of a view
selection.py   which context views a target view looks at
sweep.py       the depth sweep: a narrow cost volume around the prior
blending.py    photos, warped with that depth, blended with LaCT's own image
head.py        all of it in order
"""

from nvs_app.model.detail.config import DetailHeadConfig, Sampling
from nvs_app.model.detail.head import ContextViews, DetailHead, DetailOutput

__all__ = ["ContextViews", "DetailHead", "DetailHeadConfig", "DetailOutput", "Sampling"]
