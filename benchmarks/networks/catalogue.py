"""The networks that are tried: one of each family, the smallest that its package has a config for.

A family is a kind of backbone in mmcls 0.25, a pair of backbone and head in mmsegmentation 0.30, and an architecture in timm. Families of
transformers are among them, so that the table says of each why it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 64
"""Pixels of a classifier's input unless it says otherwise: large enough for five halvings."""
MAP_SIDE = 128
"""Pixels of a segmentation network's input."""


@dataclass(frozen=True)
class Candidate:
    """A network to try. config: as threepc takes it. side: of its square input, in pixels, None for the config's own."""

    config: str
    side: int | None = SIDE

    @property
    def source(self) -> str:
        """The package it comes from."""
        return self.config.partition(":")[0]

    @property
    def title(self) -> str:
        """Its name within that package."""
        return self.config.partition(":")[2]


_TIMM = (
    "resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 mobilenetv1_100 mobilenetv2_100 mobilenetv3_small_100"
    " mobilenetv3_large_100 efficientnet_b0 efficientnet_lite0 regnetx_002 regnety_002 vgg16_bn repvgg_a0 mobileone_s0 inception_v3:128 dla34"
    " hrnet_w18 darknet53 ghostnet_100 mnasnet_100 selecsls42 res2net50_26w_4s resnest14d seresnet50 convmixer_768_32 convnext_atto"
)
_TORCHVISION = "alexnet:96 squeezenet1_1 googlenet shufflenet_v2_x0_5"
_MMCLS = (
    "lenet5_mnist:0 vgg11_8xb32_in1k:0 vgg11bn_8xb32_in1k:0 vgg16_8xb16_voc:0 resnet18_8xb32_in1k resnet18_8xb16_cifar10:0"
    " resnet50_8xb16-mixup_cifar10:0 resnet50_8xb32-cutmix_in1k resnetv1c50_8xb32_in1k resnetv1d50_8xb32_in1k resnext50-32x4d_8xb32_in1k"
    " wide-resnet50_8xb32_in1k seresnet50_8xb32_in1k seresnext50-32x4d_8xb32_in1k resnet101-csra_1xb16_voc07-448px"
    " res2net50-w14-s8_8xb32_in1k resnest50_32xb64_in1k regnetx-400mf_8xb128_in1k densenet121_4xb256_in1k mobilenet-v2_8xb32_in1k"
    " mobilenet-v3-small_8xb32_in1k mobilenet-v3-large_8xb32_in1k shufflenet-v1-1x_16xb64_in1k shufflenet-v2-1x_16xb64_in1k"
    " efficientnet-b0_8xb32_in1k hrnet-w18_4xb32_in1k cspdarknet50_8xb32_in1k cspresnet50_8xb32_in1k cspresnext50_8xb32_in1k"
    " repvgg-A0_4xb64-coslr-120e_in1k repvgg-D2se_4xb64-autoaug-lbs-mixup-coslr-200e_in1k convmixer-768-32_10xb64_in1k repmlp-base_8xb64_in1k:0"
    " convnext-tiny_32xb128_in1k van-b0_8xb128_in1k poolformer-s12_32xb128_in1k hornet-tiny_8xb128_in1k efficientformer-l1_8xb128_in1k:0"
    " mlp-mixer-base-p16_64xb64_in1k:0 swin-tiny_16xb64_in1k:0 swinv2-tiny-w8_16xb64_in1k-256px:0 twins-svt-small_8xb128_in1k:0"
    " twins-pcpvt-small_8xb128_in1k:0 vit-base-p32_pt-64xb64_in1k-224:0 deit-tiny_pt-4xb256_in1k:0 deit-tiny-distilled_pt-4xb256_in1k:0"
    " t2t-vit-t-14_8xb64_in1k:0 tnt-s-p16_16xb64_in1k:0 conformer-tiny-p16_8xb128_in1k:0 mvitv2-tiny_8xb256_in1k:0"
)
_MMSEG = (
    "fcn_r50-d8_512x512_20k_voc12aug fcn_d6_r50b-d16_512x1024_80k_cityscapes fcn_m-v2-d8_512x512_160k_ade20k fcn_s101-d8_512x512_160k_ade20k"
    " fcn_hr18s_512x512_20k_voc12aug fcn_unet_s5-d16_128x128_40k_stare pspnet_r18-d8_512x1024_80k_cityscapes pspnet_r18b-d8_512x1024_80k_cityscapes"
    " pspnet_m-v2-d8_512x512_160k_ade20k pspnet_s101-d8_512x512_160k_ade20k pspnet_unet_s5-d16_128x128_40k_stare"
    " deeplabv3_r18-d8_512x1024_80k_cityscapes deeplabv3_r18b-d8_512x1024_80k_cityscapes deeplabv3_m-v2-d8_512x512_160k_ade20k"
    " deeplabv3_s101-d8_512x512_160k_ade20k deeplabv3_unet_s5-d16_128x128_40k_stare deeplabv3plus_r18-d8_512x1024_80k_cityscapes"
    " deeplabv3plus_r18b-d8_512x1024_80k_cityscapes deeplabv3plus_m-v2-d8_512x512_160k_ade20k deeplabv3plus_s101-d8_512x512_160k_ade20k"
    " upernet_r18_512x512_20k_voc12aug fpn_r50_512x512_160k_ade20k fastfcn_r50-d32_jpu_aspp_512x512_80k_ade20k"
    " fastfcn_r50-d32_jpu_psp_512x512_80k_ade20k fastfcn_r50-d32_jpu_enc_512x512_80k_ade20k bisenetv1_r18-d32_4x4_1024x1024_160k_cityscapes"
    " bisenetv2_fcn_4x4_1024x1024_160k_cityscapes stdc1_512x1024_80k_cityscapes fast_scnn_lr0.12_8x4_160k_cityscapes"
    " erfnet_fcn_4x4_512x1024_160k_cityscapes cgnet_680x680_60k_cityscapes icnet_r18-d8_832x832_80k_cityscapes"
    " lraspp_m-v3-d8_512x1024_320k_cityscapes:448 lraspp_m-v3s-d8_512x1024_320k_cityscapes:448 pointrend_r50_512x512_160k_ade20k"
    " ocrnet_hr18s_512x512_20k_voc12aug ocrnet_r101-d8_512x1024_40k_b8_cityscapes ann_r50-d8_512x512_20k_voc12aug"
    " apcnet_r50-d8_512x512_80k_ade20k ccnet_r50-d8_512x512_20k_voc12aug danet_r50-d8_512x512_20k_voc12aug dmnet_r50-d8_512x512_80k_ade20k"
    " dnl_r50-d8_512x512_80k_ade20k emanet_r50-d8_512x1024_80k_cityscapes encnet_r50-d8_512x512_20k_voc12aug gcnet_r50-d8_512x512_20k_voc12aug"
    " isanet_r50-d8_512x512_20k_voc12aug nonlocal_r50-d8_512x512_20k_voc12aug psanet_r50-d8_512x512_20k_voc12aug"
    " knet_s3_fcn_r50-d8_8x2_512x512_adamw_80k_ade20k upernet_convnext_tiny_fp16_512x512_160k_ade20k"
    " fpn_poolformer_s12_8x4_512x512_40k_ade20k segformer_mit-b0_512x512_160k_ade20k upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K"
    " twins_svt-s_fpn_fpnhead_8x4_512x512_80k_ade20k twins_svt-s_uperhead_8x2_512x512_160k_ade20k twins_pcpvt-s_fpn_fpnhead_8x4_512x512_80k_ade20k"
    " segmenter_vit-s_linear_8x1_512x512_160k_ade20k upernet_deit-s16_512x512_160k_ade20k:512 dpt_vit-b16_512x512_160k_ade20k:512"
)
_ONNX = (
    "torchvision:squeezenet1_1@9 timm:resnet18@11 mmcls:mobilenet-v2_8xb32_in1k@13 mmcls:shufflenet-v2-1x_16xb64_in1k@16"
    " timm:mobilenetv3_small_100@17 timm:densenet121@18 timm:darknet53@20"
)


def _candidates(source: str, names: str, side: int) -> list[Candidate]:
    """The candidates of a list of NAME or NAME:SIDE, where a side of 0 is the config's own."""
    listed = []
    for entry in names.split():
        name, _, own = entry.partition(":")
        listed.append(Candidate(f"{source}:{name}", (int(own) or None) if own else side))
    return listed


CANDIDATES: tuple[Candidate, ...] = (
    *_candidates("timm", _TIMM, SIDE),
    *_candidates("torchvision", _TORCHVISION, SIDE),
    *_candidates("mmcls", _MMCLS, SIDE),
    *_candidates("mmseg", _MMSEG, MAP_SIDE),
    *(Candidate(f"benchmarks.networks.mtcnn:{name}", None) for name in ("proposal", "refinement", "output")),
    *(Candidate(f"onnx:{name}") for name in _ONNX.split()),
)
