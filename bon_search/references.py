"""The papers behind searches and rewards, as they are cited."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A paper: family name of the first author, all authors as BibTeX has them, title, year."""

    key: str
    authors: str
    title: str
    year: int


PAPERS = {
    "arXiv:2501.09732": Paper(
        "ma2025inference",
        "Ma, Nanye and Tong, Shangyuan and Jia, Haolin and Hu, Hexiang and Su, Yu-Chuan and Zhang, Mingda and "
        "Yang, Xuan and Li, Yandong and Jaakkola, Tommi and Jia, Xuhui and Xie, Saining",
        "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps",
        2025,
    ),
    "arXiv:2501.06848": Paper(
        "singhal2025general",
        "Singhal, Raghav and Horvitz, Zachary and Teehan, Ryan and Ren, Mengye and Yu, Zhou and McKeown, Kathleen and "
        "Ranganath, Rajesh",
        "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
        2025,
    ),
    "arXiv:2501.05803": Paper(
        "kim2025test",
        "Kim, Sunwoo and Kim, Minkyu and Park, Dongmin",
        "Test-time Alignment of Diffusion Models without Reward Over-optimization",
        2025,
    ),
    "arXiv:2505.23614": Paper(
        "zhang2025inference",
        "Zhang, Xiangcheng and Lin, Haowei and Ye, Haotian and Zou, James and Ma, Jianzhu and Liang, Yitao and "
        "Du, Yilun",
        "Inference-time Scaling of Diffusion Models through Classical Search",
        2025,
    ),
    "arXiv:2408.08252": Paper(
        "li2024derivative",
        "Li, Xiner and Zhao, Yulai and Wang, Chenyu and Scalia, Gabriele and Eraslan, Gokcen and Nair, Surag and "
        "Biancalani, Tommaso and Ji, Shuiwang and Regev, Aviv and Levine, Sergey and Uehara, Masatoshi",
        "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based Decoding",
        2024,
    ),
    "arXiv:1707.01845": Paper(
        "gerber2019negative",
        "Gerber, Mathieu and Chopin, Nicolas and Whiteley, Nick",
        "Negative association, ordering and convergence of resampling methods",
        2019,
    ),
}
