# Written by `python -m multimodal_fakes.line settings` out of the modules: do not edit

from multimodal_fakes.core import FakesError
from multimodal_fakes.detect.answers import Answer as Answer
from multimodal_fakes.detect.classifier import Classifier
from multimodal_fakes.detect.fetch import UrlPolicy
from multimodal_fakes.detect.known import Recalled
from multimodal_fakes.detect.predict import Ready
from multimodal_fakes.detect.predict import Seen
from multimodal_fakes.detect.predict import load_model as load_model
from multimodal_fakes.detect.show import Shown
from multimodal_fakes.fuse.combine import Evidence
from multimodal_fakes.memory.prints import Prints
from multimodal_fakes.memory.recall import Memory
from multimodal_fakes.training.functions import predict_multimodal as predict_multimodal
from multimodal_fakes.training.functions import train_audio as train_audio
from multimodal_fakes.training.functions import train_fusion as train_fusion
from multimodal_fakes.training.functions import train_image as train_image
from multimodal_fakes.training.functions import train_text as train_text
from multimodal_fakes.training.functions import train_video as train_video
from typing import Any
import numpy as np

__all__ = ["Detector", "Answer", "load_model", "train_text", "train_image", "train_audio", "train_video", "train_fusion", "predict_multimodal", "__version__"]
__version__: str

class Detector:
    """A trained detector of one task: `Detector.load('models/fake_news').predict(text=…, image=…)`"""
    runtime: str
    precision: str
    aggregation: str
    threads: Any
    readers: Any
    bundle: dict
    version: Any
    spoken: Any
    experts: dict
    fusion: Any
    familiar: Any
    folder: Any
    urls: UrlPolicy | None
    memory: Memory | None
    memory_decides: bool
    spaces: Any
    classes: Any
    modality: Any
    modalities: Any
    positive: Any
    tokens: Any
    calibration: Any
    sets: Any

    def __init__(self, bundle: dict, experts: dict, fusion=None, familiar=None, urls: UrlPolicy | None=None, folder=None, runtime: str='torch', threads: int=0, precision: str='float32', aggregation: str='whole', memory: Memory | None=None, memory_decides: bool=False):
        """bundle: detector.json
        experts: name → expert
        fusion: `Strategy`, none where one expert ships alone
        familiar: `Familiar`, what was trained on
        urls: from where pictures and videos may be fetched, nowhere if none
        folder: models/<task>
        runtime: of the experts and the fusion
        threads: that prepare posts, all cores if zero
        precision: of the networks of torch, of `PRECISIONS`
        aggregation: how a video is judged: whole, or by its windows, see `windows_counted`
        memory: that is asked about each post
        memory_decides: whether a copy that it knows moves the probability, see `known.decided`
        """

    @classmethod
    def load(cls, source, runtime: str='auto', threads: int=0, urls: UrlPolicy | None=None, device: str='auto', precision: str='auto', aggregation: str='whole', memory=None, memory_decides: bool=False) -> Detector:
        """Read a bundle whose files are as the stages wrote them; raises where one is not

        source: models/<task>, or whatever `find_bundle` finds: an archive, an address, a release
        runtime: torch, as it was trained; onnx: the graphs of the stage export; auto: see `pick_runtime`
        threads: of one answer, all cores if zero
        urls: from where pictures and videos may be fetched, nowhere if none
        device: cpu, cuda, cuda:0, mps; auto: the best that is here
        precision: of torch, see `pick_precision`
        aggregation: of a video: whole, or mean, max or top3 of its windows
        memory: folder of a memory, or `Memory`: what it knows of a post stands beside the answer
        memory_decides: whether a copy that it knows moves the probability, see `known.decided`
        """

    def use_memory(self, memory, decides: bool=False):
        """Ask a memory from now on; raises where it cannot be opened

        memory: folder of a memory, or `Memory`; none: none is asked any more
        decides: whether a copy that it knows moves the probability, see `known.decided`
        """

    def forgetful(self) -> Detector:
        """The same detector, which asks no memory"""

    @property
    def device(self) -> str:
        """Where its networks compute

        return: cpu, cuda:0, mps
        """

    @property
    def at_once(self) -> int:
        """Posts that are best judged together: a GPU has many cores to keep busy"""

    @property
    def reads_alone(self) -> bool:
        """Whether it looks at texts and nothing else, so that no file is opened"""

    def window(self, size: int=0) -> int:
        """Posts that are best prepared together: of many texts those of one length can be judged together

        size: posts that are judged together, `at_once` if zero
        """

    def rounding(self):
        """A block in which the networks of torch compute in `precision`"""

    @property
    def name(self) -> str:
        """Task, number of the release if it is one, encoders, what ships

        return: `fake_news 3 · distilbert+efficientnet_b0 · aligned`
        """

    def save_pretrained(self, save_directory, *, repo_id: str | None=None, push_to_hub: bool=False, **push_to_hub_kwargs):
        """Copy the bundle with its manifest and card into a folder

        save_directory: made; it may be there if it is empty
        repo_id: on the Hub, the name of the folder if none
        push_to_hub: as well
        push_to_hub_kwargs: of `push_to_hub`
        return: what `push_to_hub` returns, or none
        """

    def push_to_hub(self, repo_id: str, *, commit_message: str | None=None, private: bool | None=None, token: str | None=None, branch: str | None=None, create_pr: bool | None=None, number: int | None=None, slim: bool=False, **patterns):
        """Write the bundle to a repository on the Hub, in one commit

        repo_id: user/name, made where it is not there
        commit_message: the detector's name if none
        private: as the account says if none
        token: the one that `hf auth login` kept if none
        branch: main if none
        create_pr: as a pull request
        number: of the release
        slim: without weights that torch alone opens
        patterns: allow_patterns, ignore_patterns, delete_patterns
        return: address of the commit
        """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, force_download: bool=False, token: str | None=None, cache_dir=None, local_files_only: bool=False, revision: str | None=None, **model_kwargs) -> Detector:
        """Load a detector from the Hub, or from where `load` finds it

        pretrained_model_name_or_path: user/name on the Hub, or what `load` takes
        force_download: also what is in the cache
        token: the one that `hf auth login` kept if none
        cache_dir: of the Hub's client
        local_files_only: nothing is fetched
        revision: branch, tag or commit, main if none
        model_kwargs: of `load`: runtime, threads, urls, device
        """

    def looks_at(self, part: str) -> bool:
        """Whether an expert looks at a part of a post; the words in a picture are text

        part: text, image or video
        """

    def of_modality(self, modality: str) -> dict:
        """The experts that look at a modality

        return: name → expert
        """

    def open(self, post: dict, whole: bool=False) -> tuple:
        """Decode what an expert looks at

        post: with `text`, `image` and `video`, any may be None
        whole: raise where a part cannot be decoded
        return: the post with its picture decoded and its video cut; part, or half of a video → why it could not be
        """

    def look(self, post: dict) -> tuple:
        """What the experts see of a post; an error where there is nothing to see, or a part cannot be decoded

        post: with `text`, `image` and `video`, any may be None
        return: modality → sample; how many words, how sure OCR, how many pixels
        """

    def see(self, name: str, samples: list, items=None) -> Seen:
        """What one expert makes of some posts

        name: of an expert
        samples: of its modality, None where a post has none
        items: what its reader made of those that are there, where that is known already
        """

    def read(self, samples: dict, names=None) -> dict:
        """What networks are fed of a post; experts that read alike share it

        samples: of one post, as `look` gives them
        names: of experts, all if none
        return: id of a reader → what it made of its sample
        """

    def see_all(self, samples, names=None, items=None) -> dict:
        """What experts make of some posts

        samples: as `look` gives them, for each post
        names: of experts, all if none
        items: of `read`, for each post, where that is known already
        return: name → `Seen`
        """

    def evidence(self, samples: list, quality: list, seen=None) -> Evidence:
        """What all experts make of some posts, as fusion takes it

        samples: as `look` gives them: modality → what was seen
        quality: of each post, likewise
        seen: name of an expert → its `Seen`, it does not look again
        """

    def judge(self, samples, quality, seen=None, weights=None) -> np.ndarray:
        """Judge what was looked at

        samples: of each post, as `look` gives them
        quality: of each post, likewise
        seen: name of an expert → its `Seen`, where that is known already
        weights: of the caller, for each post: name → share, of `shares_of`; none where those that ship count
        return: (n, C) calibrated probabilities
        """

    def possible(self, probs: np.ndarray) -> list:
        """The classes that the promised coverage leaves

        probs: (C,) calibrated
        return: of class names; empty where none is likely enough
        """

    def recall(self, prints: list, seen: dict) -> list:
        """Ask the memory about posts

        prints: of `known.known_prints`
        seen: name of an expert → its `Seen` of these posts
        return: `known.Recalled` of each post
        """

    def moved(self, probs: np.ndarray, told: Recalled | None) -> np.ndarray:
        """Probabilities of a post, with what the memory says of it where it may decide

        probs: (C,) calibrated
        told: of `recall`
        return: (C,)
        """

    def answer(self, probs: np.ndarray, samples: dict, far=None, failed: dict | None=None, weights=None, told: Recalled | None=None) -> Answer:
        """What is said about a post that was judged

        probs: (C,) calibrated
        samples: modality → what was seen
        far: how unlike the known it is, of `Familiar.score`
        failed: part of the post → why it could not be decoded
        weights: of the caller, of `shares_of`; none where those that ship count
        told: what the memory says of it, where there is one
        """

    def shares_of(self, weights) -> dict | None:
        """The weights of a caller as shares; raises `FakesError` where they do not fit, or what ships has none

        weights: expert or modality → number, or as `read_weights` takes them; none for those that ship
        return: name of each expert → share, together 1; none for those that ship
        """

    def cut(self, text: str | None, max_length=None) -> tuple:
        """The beginning of a text

        max_length: tokens that are left, as for `read_length`; all if none
        return: the text; see `tokens` of `Answer`, none where nothing was asked for
        """

    def far(self, seen: dict) -> list:
        """How unlike the known each post is

        seen: name of an expert → its `Seen`
        return: a number in [0, 1] for each post, none where the detector does not know
        """

    def prepare(self, post: dict, weights=None, whole: bool=False) -> Ready:
        """All that is done to a post before the networks see it; raises where nothing is left of it

        post: with `text`, `image` and `video`, any may be None, and what it asks for: `weights`, `max_length`; `ocr`, as a row of ocr.jsonl has it, where its picture was read before
        weights: of the experts, as for `shares_of`; those that ship if none
        whole: raise where a part cannot be decoded, as `look` does
        """

    def judge_clips(self, samples, quality, seen=None, weights=None) -> np.ndarray:
        """Judge what was looked at; a video by its windows, where `aggregation` says so

        samples: as for `judge`
        quality: as for `judge`
        seen: as for `judge`
        weights: as for `judge`
        return: (n, C) calibrated probabilities
        """

    def in_threads(self, function, posts: list) -> list:
        """Do something to each post, several at a time; raises what the first of them raised

        function: of one post
        return: its results, in order
        """

    def predict_batch(self, posts, weights=None, traits=()) -> list[Answer]:
        """Judge posts together

        posts: dicts with `text`, `image` and `video`, any may be None, and what a post asks for: `weights`, `max_length`, `timeline`; or texts, or a DataFrame
        weights: of the experts, as for `shares_of`; those that ship if none
        traits: names of `TRAITS` that stand beside each answer
        return: with `ignored`, and what was asked for
        """

    def judge_ready(self, ready: list, traits=()) -> list[Answer]:
        """Judge prepared posts together

        ready: of `Ready`
        traits: names of `TRAITS` that stand beside each answer
        return: with `ignored`
        """

    def prints_of(self, text: str | None=None, image=None, video=None) -> Prints:
        """What a memory recognises a post by, with the vectors of this detector

        text: as `predict` takes them
        return: raises where a part cannot be decoded
        """

    def traits(self, samples, quality, seen: dict, names=..., prints=()) -> list:
        """What was seen of posts on the way to their answers

        samples: of each post, as `look` gives them
        quality: of each post, likewise
        seen: name of an expert → its `Seen`
        prints: of `known_prints`, where somebody asks for them
        return: a dict for each post
        """

    def predict(self, text: str | None=None, image=None, video=None, weights=None, max_length=None) -> Answer:
        """Judge one post, and say where in a video the evidence is

        text: caption, headline, title
        image: path, URL, bytes, PIL image or `PictureFile`
        video: path, URL or bytes, of a video or of sound alone; or a folder of frames, `data.frames`
        weights: of the experts, as for `shares_of`; those that ship if none
        max_length: tokens of the text that are looked at, as many as the experts read if none
        return: with `ignored`; of a video also `timeline` and `frames`; of a text with `max_length` also `tokens`
        """

    def timeline(self, video, n_frames: int=3, weights=None) -> dict:
        """Where in a video the evidence is

        video: path or bytes
        n_frames: most that are named
        weights: of the experts, as for `shares_of`
        return: timeline, frames and face, see `Answer`
        """

    def by_windows(self, samples: dict, shares=None, beside=...) -> tuple:
        """Each window of a video judged alone, with whatever else there is of the post

        samples: of one post, as `look` gives them
        shares: of `shares_of`
        beside: what `look` says of its quality
        return: from and to (w, 2) in seconds of what was cut out; what lies in each window; probabilities (w, C)
        """

    def film(self, video) -> tuple:
        """What the detector sees of a video

        video: path or bytes
        return: frames (T, S, S, 3) uint8, and the second of the video that each stands at (T,)
        """

    def golden(self) -> tuple:
        """Try the known post

        return: whether it gives the known answer, and why not
        """

    def answers(self, posts: list, size: int=0) -> list[Answer | FakesError]:
        """Judge posts, without those that cannot be

        posts: as for `predict_batch`
        size: judged together, those of one length; `at_once` if zero
        return: in the place of a post that cannot be judged its error
        """

    def answers_of(self, batches, size: int=0):
        """Judge batch after batch

        batches: of posts, as for `answers`
        size: judged together, `at_once` if zero
        return: generator of lists: the answers of each batch, in order
        """

    def predict_frame(self, frame, batch_size: int=0, columns=None):
        """Judge a table in memory

        frame: DataFrame with a column text, image or video; paths, bytes or pictures
        batch_size: posts judged together, `at_once` if zero
        columns: part → its column, where that is not called as the part
        return: DataFrame with the same index and the columns of `answer_columns`; `error` says why a row has no answer
        """

    @property
    def classes_(self) -> np.ndarray:
        """The classes, in the order of the columns of `predict_proba`

        return: (C,) names
        """

    def predict_proba(self, posts, batch_size: int=32, columns=None) -> np.ndarray:
        """Probabilities of each class; raises `FakesError`, with its row, for a post that cannot be judged

        posts: DataFrame with a column text, image or video; or a list of texts, or of dicts
        columns: part → its column, where that is not called as the part
        return: (n, C) calibrated; each class for itself where several may hold
        """

    def as_classifier(self) -> Classifier:
        """This detector as scikit-learn's tools take one: `permutation_importance(detector.as_classifier(), X, y)`"""

    def show(self, text: str | None=None, image=None, video=None, of: str | None=None, method: str='occlusion', hidden: bool | None=None) -> Shown:
        """Judge one post and show the answer and why

        text: as `predict` takes them
        of: class to explain; the one that is answered if none
        method: or gradients
        hidden: whether pictures wait until they are clicked; as the task's words say if none
        return: the last line of a cell shows it, `display` does elsewhere
        """
