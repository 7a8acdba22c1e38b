"""Data modules: official layouts on disk, one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.datamodules.bolts import BoltsDataModule as BoltsDataModule
    from lit_ssl.datamodules.groups.celeba import CelebADataModule as CelebADataModule
    from lit_ssl.datamodules.groups.civilcomments import (
        CivilCommentsDataModule as CivilCommentsDataModule,
    )
    from lit_ssl.datamodules.groups.coloured_mnist import (
        ColouredMNISTDataModule as ColouredMNISTDataModule,
    )
    from lit_ssl.datamodules.groups.cub import CUBGroupsDataModule as CUBGroupsDataModule
    from lit_ssl.datamodules.groups.images import GroupImageDataModule as GroupImageDataModule
    from lit_ssl.datamodules.groups.multinli import MultiNLIDataModule as MultiNLIDataModule
    from lit_ssl.datamodules.groups.own_table import GroupCSVDataModule as GroupCSVDataModule
    from lit_ssl.datamodules.groups.text import GroupTextDataModule as GroupTextDataModule
    from lit_ssl.datamodules.groups.waterbirds import WaterbirdsDataModule as WaterbirdsDataModule
    from lit_ssl.datamodules.images.cifar import CIFAR10DataModule as CIFAR10DataModule
    from lit_ssl.datamodules.images.cifar import CIFAR100DataModule as CIFAR100DataModule
    from lit_ssl.datamodules.images.cub import CUB200DataModule as CUB200DataModule
    from lit_ssl.datamodules.images.few_shot import FewShotDataModule as FewShotDataModule
    from lit_ssl.datamodules.images.image_folder import (
        ImageFolderDataModule as ImageFolderDataModule,
    )
    from lit_ssl.datamodules.images.imagenet import ImageNetDataModule as ImageNetDataModule
    from lit_ssl.datamodules.images.imagenet_x import ImageNetXDataModule as ImageNetXDataModule
    from lit_ssl.datamodules.images.inaturalist import (
        INaturalist2018DataModule as INaturalist2018DataModule,
    )
    from lit_ssl.datamodules.images.mnist5k import MNIST5kDataModule as MNIST5kDataModule
    from lit_ssl.datamodules.images.semi_inat import (
        SemiINat2021DataModule as SemiINat2021DataModule,
    )
    from lit_ssl.datamodules.images.semi_supervised import (
        SemiSupervisedDataModule as SemiSupervisedDataModule,
    )
    from lit_ssl.datamodules.images.some_classes import (
        SomeClassesDataModule as SomeClassesDataModule,
    )
    from lit_ssl.datamodules.images.tiny_imagenet import (
        TinyImageNetDataModule as TinyImageNetDataModule,
    )
    from lit_ssl.datamodules.loading.batches import RawImages as RawImages
    from lit_ssl.datamodules.loading.class_batches import (
        ClassesPerBatchSampler as ClassesPerBatchSampler,
    )
    from lit_ssl.datamodules.loading.image_module import ImageDataModule as ImageDataModule
    from lit_ssl.datamodules.loading.repeated import RepeatedEpochSampler as RepeatedEpochSampler
    from lit_ssl.datamodules.loading.resumable import ResumableDataLoader as ResumableDataLoader
    from lit_ssl.datamodules.loading.rows_module import RowsModule as RowsModule
    from lit_ssl.datamodules.loading.samplers import EpochSampler as EpochSampler
    from lit_ssl.datamodules.loading.samplers import ShardSampler as ShardSampler
    from lit_ssl.datamodules.loading.stratified import (
        ClassStratifiedSampler as ClassStratifiedSampler,
    )
    from lit_ssl.datamodules.loading.weighted import WeightedEpochSampler as WeightedEpochSampler
    from lit_ssl.datamodules.points.clouds import ArrayClouds as ArrayClouds
    from lit_ssl.datamodules.points.clouds import FileClouds as FileClouds
    from lit_ssl.datamodules.points.mnist5k_points import (
        MNIST5kPointsDataModule as MNIST5kPointsDataModule,
    )
    from lit_ssl.datamodules.points.modelnet40 import ModelNet40DataModule as ModelNet40DataModule
    from lit_ssl.datamodules.points.points_module import PointsModule as PointsModule
    from lit_ssl.datamodules.reading.decoding import CorruptImageError as CorruptImageError
    from lit_ssl.datamodules.reading.images import ArrayImages as ArrayImages
    from lit_ssl.datamodules.reading.images import FileImages as FileImages
    from lit_ssl.datamodules.reading.rows import Rows as Rows
    from lit_ssl.datamodules.selection.lists import packaged_lists as packaged_lists
    from lit_ssl.datamodules.selection.subset import Subset as Subset
    from lit_ssl.datamodules.sequences.byte_table import (
        ByteTextCSVDataModule as ByteTextCSVDataModule,
    )
    from lit_ssl.datamodules.sequences.byte_text import ByteTextDataModule as ByteTextDataModule
    from lit_ssl.datamodules.sequences.listops import ListOpsDataModule as ListOpsDataModule
    from lit_ssl.datamodules.sequences.mnist5k_bytes import (
        MNIST5kBytesDataModule as MNIST5kBytesDataModule,
    )
    from lit_ssl.datamodules.sequences.packed import PackedSequences as PackedSequences
    from lit_ssl.datamodules.sequences.sequence_module import SequenceModule as SequenceModule
    from lit_ssl.datamodules.streaming.image_tars import (
        ImageTarsDataModule as ImageTarsDataModule,
    )
    from lit_ssl.datamodules.streaming.streaming_images import (
        StreamingImageDataModule as StreamingImageDataModule,
    )
    from lit_ssl.datamodules.video.bdd100k import BDD100KVideoDataModule as BDD100KVideoDataModule
    from lit_ssl.datamodules.video.clip_module import VideoDataModule as VideoDataModule
    from lit_ssl.datamodules.video.files_module import VideoFilesModule as VideoFilesModule
    from lit_ssl.datamodules.video.folder import VideoFolderDataModule as VideoFolderDataModule
    from lit_ssl.datamodules.video.kinetics import KineticsDataModule as KineticsDataModule
    from lit_ssl.datamodules.video.moving_digits import (
        MovingDigitsDataModule as MovingDigitsDataModule,
    )
    from lit_ssl.datamodules.video.sources import ArrayClips as ArrayClips
    from lit_ssl.datamodules.video.sources import Clips as Clips
    from lit_ssl.datamodules.video.ucf101 import UCF101DataModule as UCF101DataModule
    from lit_ssl.datamodules.video.video_frames import (
        VideoFramesDataModule as VideoFramesDataModule,
    )
    from lit_ssl.datamodules.vision_language.caption_source import CaptionSource as CaptionSource
    from lit_ssl.datamodules.vision_language.captions.karpathy import CocoCaptions as CocoCaptions
    from lit_ssl.datamodules.vision_language.captions.karpathy import (
        Flickr30kCaptions as Flickr30kCaptions,
    )
    from lit_ssl.datamodules.vision_language.captions.listed_captions import (
        ConceptualCaptions as ConceptualCaptions,
    )
    from lit_ssl.datamodules.vision_language.captions.listed_captions import (
        SBUCaptions as SBUCaptions,
    )
    from lit_ssl.datamodules.vision_language.captions.mixture import (
        VLPretrainDataModule as VLPretrainDataModule,
    )
    from lit_ssl.datamodules.vision_language.captions.pair_list import PairList as PairList
    from lit_ssl.datamodules.vision_language.captions.visual_genome import (
        VisualGenomeRegions as VisualGenomeRegions,
    )
    from lit_ssl.datamodules.vision_language.digit_scenes.files import (
        write_nlvr2_layout as write_nlvr2_layout,
    )
    from lit_ssl.datamodules.vision_language.digit_scenes.retrieval import (
        DigitScenesRetrievalDataModule as DigitScenesRetrievalDataModule,
    )
    from lit_ssl.datamodules.vision_language.digit_scenes.scenes import (
        DigitScenesDataModule as DigitScenesDataModule,
    )
    from lit_ssl.datamodules.vision_language.digit_scenes.scenes import (
        DigitScenesNLVR2DataModule as DigitScenesNLVR2DataModule,
    )
    from lit_ssl.datamodules.vision_language.image_captions import (
        CaptionedImages as CaptionedImages,
    )
    from lit_ssl.datamodules.vision_language.image_captions import (
        ImageCaptionModule as ImageCaptionModule,
    )
    from lit_ssl.datamodules.vision_language.image_pairs import (
        ImagePairTextModule as ImagePairTextModule,
    )
    from lit_ssl.datamodules.vision_language.shards.caption_shards import (
        CaptionShardsDataModule as CaptionShardsDataModule,
    )
    from lit_ssl.datamodules.vision_language.shards.shard_sets import ShardSet as ShardSet
    from lit_ssl.datamodules.vision_language.shards.tar_pairs import TarPairs as TarPairs
    from lit_ssl.datamodules.vision_language.tasks.image_questions import (
        ImageQuestionModule as ImageQuestionModule,
    )
    from lit_ssl.datamodules.vision_language.tasks.image_questions import (
        QuestionedImages as QuestionedImages,
    )
    from lit_ssl.datamodules.vision_language.tasks.nlvr2 import NLVR2DataModule as NLVR2DataModule
    from lit_ssl.datamodules.vision_language.tasks.retrieval import (
        RetrievalDataModule as RetrievalDataModule,
    )
    from lit_ssl.datamodules.vision_language.tasks.snli_ve import (
        SNLIVEDataModule as SNLIVEDataModule,
    )
    from lit_ssl.datamodules.vision_language.tasks.vqav2 import VQAv2DataModule as VQAv2DataModule

__all__, __getattr__, __dir__ = lazy_names(__name__)
