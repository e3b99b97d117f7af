"""Measure the pack as it lies in the repository, and draw the contact sheet.

python -m dnd_packs.starter.train.check <work folder> [<sheet.webp>]

Prints one JSON line per part: reconstruction, captions, retrieval, drawings.
"""

import json
import random
import sys
import time
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor, BlipForConditionalGeneration

from dnd_packs.starter import CAPTIONER_DIR, SCORER_DIR, SYNTHESIZER_DIR
from dnd_packs.starter.emoji_data import EmojiConcept, load_concepts

from .texts import TextTable
from .views import Rasters, drawing_views, seen_views
from .words import plain_words

TEMPLATE = "one realistic image of {}"
STEPS, GUIDANCE, DRAWINGS = 10, 3.0, 10


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Turn ``(images, 3, height, width)`` in −1..1 into Pillow images."""
    array = ((images.clamp(-1, 1) + 1) * 127.5 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in array]


@torch.no_grad()
def check_reconstruction(pipeline: DiffusionPipeline, rasters: Rasters) -> dict:
    """Mean absolute error and PSNR of the autoencoder on 512 fresh views, in 0..1."""
    rng = torch.Generator().manual_seed(101)
    images = drawing_views(rasters, torch.randint(0, len(rasters), (512,), generator=rng), rng)
    output = torch.cat([pipeline.vae(batch).sample for batch in images.split(64)]).clamp(-1, 1)
    difference = (output - images) / 2
    psnr = -10 * difference.square().mean((1, 2, 3)).log10()
    return {"mean_absolute_error": difference.abs().mean().item(), "psnr_db": psnr.mean().item()}


def _keywords(concept: EmojiConcept) -> set[str]:
    """Content words of the name and the keywords."""
    words = {word for text in (concept.name, *concept.tags) for word in plain_words(text).split()}
    return {
        word
        for word in words
        if len(word) > 2 and word not in {"with", "and", "the", "face", "flag"}
    }


@torch.no_grad()
def check_captions(rasters: Rasters, captions: list[str]) -> dict:
    """Accuracy on fresh OpenMoji views: whole on white as in the probe set, augmented, crops."""
    model = BlipForConditionalGeneration.from_pretrained(CAPTIONER_DIR, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(CAPTIONER_DIR)
    concepts, rng = load_concepts(), torch.Generator().manual_seed(102)
    openmoji = torch.tensor([row["style"] == "openmoji" for row in rasters.rows]).float()
    index = torch.multinomial(openmoji, 400, generator=rng)
    views = {
        "whole": drawing_views(rasters, index, rng, white=1.0),
        "augmented": seen_views(rasters, index, rng, crops=0.0),
        "crops": seen_views(rasters, index, rng, crops=1.0),
    }
    result: dict = {}
    for view, images in views.items():
        texts: list[str] = []
        for start in range(0, len(images), 50):
            inputs = processor(images=to_pil(images[start : start + 50]), return_tensors="pt")
            output = model.generate(**inputs, max_new_tokens=24, num_beams=1, do_sample=False)
            texts += processor.batch_decode(output, skip_special_tokens=True)
        wanted = [captions[i].split(",")[0] for i in index.tolist()]
        kinds = [captions[i].split(", mostly")[0].split(", ")[1:] for i in index.tolist()]
        names = sum(text.split(",")[0] == name for text, name in zip(texts, wanted, strict=True))
        words = sum(
            bool(_keywords(concepts[rasters.rows[i]["concept"]]) & set(text.split(",")[0].split()))
            for i, text in zip(index.tolist(), texts, strict=True)
        )
        kind = sum(
            text.split(", mostly")[0].split(", ")[1:] == kind
            for text, kind in zip(texts, kinds, strict=True)
        )
        result[view] = {
            "name_exact": names / 400,
            "name_or_keyword": words / 400,
            "kind": kind / 400,
        }
        result[view]["examples"] = [
            f"{captions[i]} -> {text}" for i, text in zip(index[:4].tolist(), texts, strict=False)
        ]
    return result


class Clip:
    """The scorer, with the two embeddings this module needs."""

    def __init__(self) -> None:
        self.model = AutoModel.from_pretrained(SCORER_DIR, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(SCORER_DIR)

    @torch.no_grad()
    def images(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Unit embeddings of images."""
        pixels = self.processor(images=pictures, return_tensors="pt").pixel_values
        output = torch.cat(
            [self.model.vision_model(batch).pooler_output for batch in pixels.split(64)]
        )
        return functional.normalize(self.model.visual_projection(output), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> torch.Tensor:
        """Unit embeddings of texts."""
        inputs = self.processor(text=texts, return_tensors="pt", padding=True, truncation=True)
        return functional.normalize(
            self.model.text_projection(self.model.text_model(**inputs).pooler_output), dim=-1
        )


def check_retrieval(clip: Clip, rasters: Rasters) -> dict:
    """Rank of the right name among all 1,914 for fresh OpenMoji views, and the median rank."""
    rng = torch.Generator().manual_seed(103)
    openmoji = torch.tensor([row["style"] == "openmoji" for row in rasters.rows]).float()
    index = torch.multinomial(openmoji, 500, generator=rng)
    names = clip.texts([plain_words(concept.name) for concept in load_concepts()])
    result = {}
    views = {
        "whole": drawing_views(rasters, index, rng, white=1.0),
        "augmented": seen_views(rasters, index, rng, crops=0.0),
        "crops": seen_views(rasters, index, rng, crops=1.0),
    }
    for view, pictures in views.items():
        images = clip.images(to_pil(pictures))
        similarity = images @ names.T
        right = similarity.gather(1, rasters.concept[index][:, None])
        rank = (similarity > right).sum(1)
        result[view] = {
            "top1": (rank < 1).float().mean().item(),
            "top5": (rank < 5).float().mean().item(),
            "median_rank": rank.median().item(),
        }
    return result


def draw(
    pipeline: DiffusionPipeline, concepts: list[str], steps: int, guidance: float
) -> list[list[Image.Image]]:
    """Ten drawings of each concept, one generator per image."""
    rows = []
    for concept in concepts:
        generators = [torch.Generator().manual_seed(1000 + number) for number in range(DRAWINGS)]
        output = pipeline(
            [TEMPLATE.format(concept)] * DRAWINGS,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
        )
        rows.append(output.images)
    return rows


def check_drawings(
    clip: Clip, pipeline: DiffusionPipeline, names: list[str], steps: int, guidance: float
) -> tuple[dict, list]:
    """Share of drawings whose own concept the scorer ranks first (first five) among all drawn."""
    start = time.monotonic()
    rows = draw(pipeline, names, steps, guidance)
    seconds = (time.monotonic() - start) / (len(names) * DRAWINGS)
    texts = clip.texts(names)
    images = torch.stack([clip.images(row) for row in rows])
    similarity = images @ texts.T
    right = similarity[torch.arange(len(names)), :, torch.arange(len(names))]
    rank = (similarity > right[..., None]).sum(-1)
    return {
        "steps": steps,
        "guidance": guidance,
        "concepts": len(names),
        "top1": (rank < 1).float().mean().item(),
        "top5": (rank < 5).float().mean().item(),
        "mean_similarity": right.mean().item(),
        "seconds_per_drawing": seconds,
    }, rows


def contact_sheet(rows: list[list[Image.Image]], names: list[str], path: Path) -> None:
    """Two columns of concepts, a name and ten drawings each, in reading order."""
    from PIL import ImageDraw

    height, width, label = 66, 66 * DRAWINGS + 130, 128
    half = (len(rows) + 1) // 2
    sheet = Image.new("RGB", (2 * width, half * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        left, top = (number // half) * width, (number % half) * height
        words, line = name.split(), ""
        lines = []
        for word in words:
            if len(line) + len(word) > 18:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        pen.text((left + 4, top + 16), "\n".join([*lines, line]), fill="black")
        for column, picture in enumerate(row):
            sheet.paste(picture, (left + label + column * 66, top + 1))
    sheet.save(path, quality=70)


def sample_names(count: int, seed: int) -> list[str]:
    """Names of random concepts, flags left out."""
    names = [plain_words(concept.name) for concept in load_concepts() if concept.group != "flags"]
    return random.Random(seed).sample(names, count)


def main(work: Path, sheet: Path | None) -> None:
    """Run all checks."""
    rasters = Rasters(work)
    pipeline = DiffusionPipeline.from_pretrained(SYNTHESIZER_DIR, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    clip = Clip()
    print(json.dumps({"reconstruction": check_reconstruction(pipeline, rasters)}), flush=True)
    print(
        json.dumps({"captions": check_captions(rasters, TextTable(rasters).captions)}, indent=1),
        flush=True,
    )
    print(json.dumps({"retrieval": check_retrieval(clip, rasters)}), flush=True)
    names = sample_names(100, seed=7)
    result, rows = check_drawings(clip, pipeline, names, STEPS, GUIDANCE)
    print(json.dumps({"drawings": result}), flush=True)
    if sheet is not None:
        contact_sheet(rows[:40], names[:40], sheet)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
