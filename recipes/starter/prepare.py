"""Unpack tiny_imagenet.zip into class folders with readable names: `python prepare.py tiny_imagenet.zip FOLDER`.

The archive names its classes by WordNet id and gives their synonyms in words.txt. A class is called by its first
synonym, save where another one is plainer.
"""

import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

PLAINER = {
    "European fire salamander": "fire salamander",
    "black widow": "black widow spider",
    "tabby": "tabby cat",
    "walking stick": "stick insect",
    "mantis": "praying mantis",
    "monarch": "monarch butterfly",
    "hog": "pig",
    "bighorn": "bighorn sheep",
    "Arabian camel": "dromedary",
    "lesser panda": "red panda",
    "bannister": "banister",
    "beach wagon": "station wagon",
    "beacon": "lighthouse",
    "brass": "memorial plaque",
    "confectionery": "candy store",
    "crane": "construction crane",
    "gasmask": "gas mask",
    "jinrikisha": "rickshaw",
    "organ": "pipe organ",
    "pay-phone": "pay phone",
    "pop bottle": "soda bottle",
    "projectile": "missile",
    "teddy": "teddy bear",
    "thatch": "thatched roof",
    "ice lolly": "popsicle",
    "lakeside": "lakeshore",
    "groom": "bridegroom",
}


def read_labels(words: str) -> dict[str, str]:
    """Return a label for each WordNet id of words.txt."""
    firsts = {wnid: names.split(",")[0] for wnid, names in (line.split("\t") for line in words.splitlines())}
    labels = {wnid: PLAINER.get(first, first) for wnid, first in firsts.items()}
    assert len(set(labels.values())) == len(labels), "two classes have the same label"
    assert not PLAINER.keys() - firsts.values(), "a class is not in words.txt"
    return labels


def prepare(archive: Path, folder: Path) -> None:
    """Unpack the training and validation photos."""
    with ZipFile(archive) as photos:
        labels = read_labels(photos.read("words.txt").decode())
        for name in photos.namelist():
            if name.endswith(".webp"):
                split, wnid, file = name.split("/")
                target = folder / split / labels[wnid] / file
                target.parent.mkdir(parents=True, exist_ok=True)
                with photos.open(name) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
