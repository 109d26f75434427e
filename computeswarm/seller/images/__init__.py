"""Images: the named environments a seller offers."""

from computeswarm.seller.images.image import RECIPES, Image, ImageError, Recipe, host_python
from computeswarm.seller.images.packages import Progress
from computeswarm.seller.images.store import ImageStore

__all__ = ["RECIPES", "Image", "ImageError", "ImageStore", "Progress", "Recipe", "host_python"]
