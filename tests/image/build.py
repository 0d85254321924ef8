"""Carries out the instructions of a Dockerfile, stage by stage."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from image.dockerfile import Instruction, Stage
from image.roots import copy_root, run_in


@dataclass(slots=True)
class Image:
    """A root, and how something is started in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def build(stages: list[Stage], base: Path, context: Path, work: Path) -> Image:
    """The last stage's image. `context` has the files that COPY may take."""
    images: dict[str, Image] = {}
    image = Image(base)
    for number, stage in enumerate(stages):
        image = Image(work / f"stage-{number}")
        copy_root(base, image.root)
        images[stage.name] = image
        for instruction in stage.instructions:
            print(f"{stage.name or 'image'}: {instruction.name} {instruction.text}", flush=True)
            _carry_out(instruction, image, images, context)
    return image


def _carry_out(instruction: Instruction, image: Image, images: dict[str, Image], context: Path) -> None:
    match instruction.name:
        case "RUN":
            run_in(image.root, ["sh", "-c", instruction.text], image.folder, image.environ, image.user)
        case "COPY":
            _copy(shlex.split(instruction.text), image, images, context)
        case "ENV":
            for pair in shlex.split(instruction.text):
                name, _, value = pair.partition("=")
                image.environ[name] = value
        case "WORKDIR":
            image.folder = instruction.text
            _inside(image, instruction.text).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = instruction.text
        case "VOLUME":
            image.volumes = json.loads(instruction.text)
        case "CMD":
            image.command = json.loads(instruction.text)
        case "HEALTHCHECK":
            image.health = json.loads(instruction.text.partition(" CMD ")[2])
        case "EXPOSE":
            pass  # for the engine that runs it
        case other:
            raise ValueError(f"{other} is not known")


def _copy(words: list[str], image: Image, images: dict[str, Image], context: Path) -> None:
    options = dict(word.lstrip("-").split("=", 1) for word in words if word.startswith("--"))
    *sources, target = [word for word in words if not word.startswith("--")]
    origin = images[options["from"]].root if "from" in options else context
    into = _inside(image, target)
    for source in sources:
        path = origin / source.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
        elif target.endswith("/"):
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, into / path.name)
        else:
            shutil.copy2(path, into)
        if "chown" in options:
            subprocess.run(["chown", "-R", options["chown"], into], check=True)


def _inside(image: Image, path: str) -> Path:
    return image.root / (path if path.startswith("/") else f"{image.folder}/{path}").lstrip("/")
