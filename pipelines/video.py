"""Videos before a reward that knows pictures.

A video pipeline decodes to (N, F, 3, H, W). Two frames tell most of it:

frames = key_frames(sampler.decode(particles))  # (N, 2, 3, H, W)
scores = reward(frames.flatten(0, 1), [prompt] * 2 * len(frames)).unflatten(0, (-1, 2)).mean(dim=1)  # (N,)
"""

import torch

from pipelines.sampler import Images


def key_frames(videos: Images) -> Images:
    """The first and the middle frame of each video; of pictures, the picture itself.

    Args:
        videos: (N, F, 3, H, W), or pictures (N, 3, H, W).

    Returns:
        (N, 2, 3, H, W), or (N, 1, 3, H, W) of pictures; the range is kept.
    """
    if videos.ndim == 4:
        return videos.unsqueeze(1)
    return torch.stack([videos[:, 0], videos[:, videos.shape[1] // 2]], dim=1)
