"""Videos: files, the index of their clips, clips of frames, a cache, writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.video.cache import VideoCache as VideoCache
    from lit_ssl.video.cache_writing import write_video_cache as write_video_cache
    from lit_ssl.video.clip_index import ClipIndex as ClipIndex
    from lit_ssl.video.clip_index import build_clip_index as build_clip_index
    from lit_ssl.video.clips import all_clips as all_clips
    from lit_ssl.video.clips import clip_span as clip_span
    from lit_ssl.video.clips import even_clips as even_clips
    from lit_ssl.video.clips import random_clip as random_clip
    from lit_ssl.video.clips import resampled_frames as resampled_frames
    from lit_ssl.video.frames import UnreadableVideo as UnreadableVideo
    from lit_ssl.video.listing import find_videos as find_videos
    from lit_ssl.video.probe import VideoFacts as VideoFacts
    from lit_ssl.video.probe import probe_video as probe_video
    from lit_ssl.video.pyav_reader import PyAVReader as PyAVReader
    from lit_ssl.video.readers import VideoReader as VideoReader
    from lit_ssl.video.readers import open_reader as open_reader
    from lit_ssl.video.resampling import downsample_video as downsample_video
    from lit_ssl.video.resampling import upsample_condition as upsample_condition
    from lit_ssl.video.sheet import contact_sheet as contact_sheet
    from lit_ssl.video.sheet import write_png as write_png
    from lit_ssl.video.torchcodec_reader import TorchcodecReader as TorchcodecReader
    from lit_ssl.video.writing import write_video as write_video

__all__, __getattr__, __dir__ = lazy_names(__name__)
