"""The one exception of the library that a user's mistake raises."""


class NVSError(Exception):
    """A user's mistake, told in one line: where, what, and the remedy.

    The command line prints ``str(error)`` on one line and exits with status 2; the web application shows it
    in the page. Programming mistakes keep Python's own exceptions.

    Example: ``NVSError("scene/transforms.json: frame 12 (images/012.png): transform_matrix is 3x4, expected 4x4")``
    """
