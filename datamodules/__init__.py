"""Data modules: official layouts on disk, one contract."""

from lit_ssl.datamodules.base import ImageDataModule
from lit_ssl.datamodules.batches import RawImages
from lit_ssl.datamodules.celeba import CelebADataModule
from lit_ssl.datamodules.cifar import CIFAR10DataModule, CIFAR100DataModule
from lit_ssl.datamodules.civilcomments import CivilCommentsDataModule
from lit_ssl.datamodules.coloured_mnist import ColouredMNISTDataModule
from lit_ssl.datamodules.decoding import CorruptImageError
from lit_ssl.datamodules.few_classes import ClassesPerBatchSampler
from lit_ssl.datamodules.group_csv import GroupCSVDataModule
from lit_ssl.datamodules.group_images import GroupImageDataModule
from lit_ssl.datamodules.group_text import GroupTextDataModule
from lit_ssl.datamodules.image_folder import ImageFolderDataModule
from lit_ssl.datamodules.imagenet import ImageNetDataModule
from lit_ssl.datamodules.imagenet_x import ImageNetXDataModule
from lit_ssl.datamodules.inaturalist import INaturalist2018DataModule
from lit_ssl.datamodules.loaders import ResumableDataLoader
from lit_ssl.datamodules.mnist5k import MNIST5kDataModule
from lit_ssl.datamodules.multinli import MultiNLIDataModule
from lit_ssl.datamodules.packaged import packaged_lists
from lit_ssl.datamodules.samplers import EpochSampler, ShardSampler
from lit_ssl.datamodules.semi_supervised import SemiSupervisedDataModule
from lit_ssl.datamodules.stratified import ClassStratifiedSampler
from lit_ssl.datamodules.subset import Subset
from lit_ssl.datamodules.waterbirds import WaterbirdsDataModule
from lit_ssl.datamodules.weighted import WeightedEpochSampler

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "CelebADataModule",
    "CivilCommentsDataModule",
    "ClassStratifiedSampler",
    "ClassesPerBatchSampler",
    "ColouredMNISTDataModule",
    "CorruptImageError",
    "EpochSampler",
    "GroupCSVDataModule",
    "GroupImageDataModule",
    "GroupTextDataModule",
    "INaturalist2018DataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "ImageNetXDataModule",
    "MNIST5kDataModule",
    "MultiNLIDataModule",
    "RawImages",
    "ResumableDataLoader",
    "SemiSupervisedDataModule",
    "ShardSampler",
    "Subset",
    "WaterbirdsDataModule",
    "WeightedEpochSampler",
    "packaged_lists",
]
