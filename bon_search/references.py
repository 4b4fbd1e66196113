"""The papers behind searches and rewards, as they are cited."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """A paper: its BibTeX key, all authors as BibTeX has them, title, year."""

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
        "Singhal, Raghav and Horvitz, Zachary and Teehan, Ryan and Ren, Mengye and Yu, Zhou and McKeown, Kathleen"
        " and Ranganath, Rajesh",
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
    "arXiv:2502.00968": Paper(
        "singh2025code",
        "Singh, Anuj and Mukherjee, Sayak and Beirami, Ahmad and Jamali-Rad, Hadi",
        "CoDe: Blockwise Control for Denoising Diffusion Models",
        2025,
    ),
    "arXiv:2501.19252": Paper(
        "oshima2025inference",
        "Oshima, Yuta and Suzuki, Masahiro and Matsuo, Yutaka and Furuta, Hiroki",
        "Inference-Time Text-to-Video Alignment with Diffusion Latent Beam Search",
        2025,
    ),
    "arXiv:2503.19385": Paper(
        "kim2025inference",
        "Kim, Jaihoon and Yoon, Taehoon and Hwang, Jisung and Sung, Minhyuk",
        "Inference-Time Scaling for Flow Models via Stochastic Generation and Rollover Budget Forcing",
        2025,
    ),
    "arXiv:2505.17618": Paper(
        "he2025scaling",
        "He, Haoran and Liang, Jiajun and Wang, Xintao and Wan, Pengfei and Zhang, Di and Gai, Kun and Pan, Ling",
        "Scaling Image and Video Generation via Test-Time Evolutionary Search",
        2025,
    ),
    "arXiv:2506.03164": Paper(
        "ramesh2025test",
        "Ramesh, Vignav and Mardani, Morteza",
        "Test-Time Scaling of Diffusion Models via Noise Trajectory Search",
        2025,
    ),
    "arXiv:2511.22242": Paper(
        "yu2025ttsnap",
        "Yu, Qingtao and Song, Changlin and Sun, Minghao and Yu, Zhengyang and Verma, Vinay Kumar and Roy, Soumya"
        " and Negi, Sumit and Li, Hongdong and Campbell, Dylan",
        "TTSnap: Test-Time Scaling of Diffusion Models via Noise-Aware Pruning",
        2025,
    ),
    "arXiv:2406.04312": Paper(
        "eyring2024reno",
        "Eyring, Luca and Karthik, Shyamgopal and Roth, Karsten and Dosovitskiy, Alexey and Akata, Zeynep",
        "ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise Optimization",
        2024,
    ),
    "arXiv:2405.18881": Paper(
        "tang2024inference",
        "Tang, Zhiwei and Peng, Jiangweizhi and Tang, Jiasheng and Hong, Mingyi and Wang, Fan and Chang, Tsung-Hui",
        "Inference-Time Alignment of Diffusion Models with Direct Noise Optimization",
        2024,
    ),
    "arXiv:2506.01320": Paper(
        "yoon2025psi",
        "Yoon, Taehoon and Min, Yunhong and Yeo, Kyeongmin and Sung, Minhyuk",
        "Psi-Sampler: Initial Particle Sampling for SMC-Based Inference-Time Reward Alignment in Score Models",
        2025,
    ),
    "arXiv:1707.01845": Paper(
        "gerber2019negative",
        "Gerber, Mathieu and Chopin, Nicolas and Whiteley, Nick",
        "Negative association, ordering and convergence of resampling methods",
        2019,
    ),
    "arXiv:cs/0507025": Paper(
        "douc2005comparison",
        "Douc, Randal and Capp{\\'e}, Olivier and Moulines, Eric",
        "Comparison of Resampling Schemes for Particle Filtering",
        2005,
    ),
    "arXiv:2507.21391": Paper(
        "zhou2025multimodal",
        "Zhou, Shijie and Zhang, Ruiyi and Zhu, Huaisheng and Kveton, Branislav and Zhou, Yufan and Gu, Jiuxiang "
        "and Chen, Jian and Chen, Changyou",
        "Multimodal LLMs as Customized Reward Models for Text-to-Image Generation",
        2025,
    ),
    "arXiv:2305.01569": Paper(
        "kirstain2023pick",
        "Kirstain, Yuval and Polyak, Adam and Singer, Uriel and Matiana, Shahbuland and Penna, Joe and Levy, Omer",
        "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation",
        2023,
    ),
    "arXiv:2306.09341": Paper(
        "wu2023human",
        "Wu, Xiaoshi and Hao, Yiming and Sun, Keqiang and Chen, Yixiong and Zhu, Feng and Zhao, Rui and Li, Hongsheng",
        "Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image Synthesis",
        2023,
    ),
    "arXiv:2304.05977": Paper(
        "xu2023imagereward",
        "Xu, Jiazheng and Liu, Xiao and Wu, Yuchen and Tong, Yuxuan and Li, Qinkai and Ding, Ming and Tang, Jie "
        "and Dong, Yuxiao",
        "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation",
        2023,
    ),
    "arXiv:2104.08718": Paper(
        "hessel2021clipscore",
        "Hessel, Jack and Holtzman, Ari and Forbes, Maxwell and Le Bras, Ronan and Choi, Yejin",
        "CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
        2021,
    ),
    "arXiv:2404.01291": Paper(
        "lin2024evaluating",
        "Lin, Zhiqiu and Pathak, Deepak and Li, Baiqi and Li, Jiayao and Xia, Xide and Neubig, Graham and Zhang, "
        "Pengchuan and Ramanan, Deva",
        "Evaluating Text-to-Visual Generation with Image-to-Text Generation",
        2024,
    ),
    "Weitzman, Optimal search for the best alternative, 1979": Paper(
        "weitzman1979optimal", "Weitzman, Martin L.", "Optimal Search for the Best Alternative", 1979
    ),
    "Dumitriu, Tetali and Winkler, On playing golf with two balls, 2003": Paper(
        "dumitriu2003playing",
        "Dumitriu, Ioana and Tetali, Prasad and Winkler, Peter",
        "On Playing Golf with Two Balls",
        2003,
    ),
    "Rényi, On the theory of order statistics, 1953": Paper(
        "renyi1953theory", "R{\\'e}nyi, Alfr{\\'e}d", "On the Theory of Order Statistics", 1953
    ),
}
