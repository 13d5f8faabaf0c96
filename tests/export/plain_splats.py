"""A slow, plain renderer of Gaussian splats, for tests: every Gaussian's fragments, sorted, composited front to back.

As 3D Gaussian splatting defines it (Kerbl et al. 2023): the projection is linear around each mean, 0.3 square pixels
are added to each projected covariance, fragments below 1/255 are left out.
"""

from __future__ import annotations

import numpy as np


def rotation(quats: np.ndarray) -> np.ndarray:
    """Quaternions [n, 4], real part first, as matrices [n, 3, 3]."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)


def render_splats(
    means: np.ndarray, scales: np.ndarray, quats: np.ndarray, colours: np.ndarray, opacities: np.ndarray,
    c2w: np.ndarray, fxfycxcy: np.ndarray, image_hw: tuple[int, int], background: tuple[float, ...],
) -> np.ndarray:  # fmt: skip
    """One view [h, w, 3]; the camera has OpenCV axes, the first pixel's centre is at (0.5, 0.5)."""
    (height, width), (fx, fy, cx, cy) = image_hw, fxfycxcy
    turn, eye = c2w[:3, :3].astype(float), c2w[:3, 3]
    local = (means - eye) @ turn
    front = local[:, 2] > 1e-2 * np.median(np.abs(local[:, 2]))
    local, scales, quats, colours, opacities = (
        a[front].astype(float) for a in (local, scales, quats, colours, opacities)
    )
    x, y, z = local.T
    u, v = fx * x / z + cx, fy * y / z + cy
    slope = np.zeros((len(z), 2, 3))
    slope[:, 0, 0], slope[:, 0, 2], slope[:, 1, 1], slope[:, 1, 2] = fx / z, -fx * x / z**2, fy / z, -fy * y / z**2
    root = slope @ turn.T @ (rotation(quats) * scales[:, None, :])
    covariance = root @ root.transpose(0, 2, 1) + 0.3 * np.eye(2)
    reach = np.ceil(3 * np.sqrt(covariance[:, [0, 1], [0, 1]].max(1))).astype(int)
    visible = (u > -reach) & (u < width + reach) & (v > -reach) & (v < height + reach) & (reach < max(image_hw))
    inverse = np.linalg.inv(covariance)
    parts = []
    for size in np.unique(reach[visible]):
        chosen = np.flatnonzero(visible & (reach == size))
        offsets = np.arange(-size, size + 1)
        dy, dx = (part.ravel() for part in np.meshgrid(offsets, offsets, indexing="ij"))
        columns, rows = np.floor(u[chosen])[:, None] + dx, np.floor(v[chosen])[:, None] + dy
        away = np.stack([columns + 0.5 - u[chosen][:, None], rows + 0.5 - v[chosen][:, None]], -1)
        power = np.einsum("nki,nij,nkj->nk", away, inverse[chosen], away)
        alpha = np.minimum(opacities[chosen][:, None] * np.exp(-0.5 * power), 0.999)
        kept = (alpha >= 1 / 255) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        index = np.broadcast_to(chosen[:, None], kept.shape)[kept]
        parts.append((rows[kept].astype(int) * width + columns[kept].astype(int), index, alpha[kept]))
    pixel, index, alpha = (np.concatenate(part) for part in zip(*parts))
    order = np.lexsort((z[index], pixel))
    pixel, index, alpha = pixel[order], index[order], alpha[order]
    # Sums of logarithms from the first fragment of a pixel on: the light that reaches each fragment.
    logs = np.concatenate([[0], np.cumsum(np.log1p(-alpha))])
    first = np.searchsorted(pixel, pixel)
    weight = alpha * np.exp(logs[:-1] - logs[first])
    image = np.zeros((height * width, 3))
    for channel in range(3):
        image[:, channel] = np.bincount(pixel, weight * colours[index, channel], height * width)
    cover = np.bincount(pixel, weight, height * width)[:, None]
    return (image + (1 - cover) * np.array(background)).reshape(height, width, 3)
