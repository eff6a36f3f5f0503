"""Corrects words with several workers that share an index of known words; the program to explain.

    python -m bequest explain --tree examples/spelling.py README.md
    python -m bequest explain --html page.html examples/spelling.py README.md
    python -m bequest check examples/spelling.py README.md

prints what the workers make of some misspelled words, such as

    multiprocesing -> multiprocessing

A worker runs a method of the object that owns all: the index, a cache in a database, a log file, the queues, and a
reader that has begun. `explain` shows what of it each worker is given, how, and how large it is. The reader cannot be
carried; no worker touches it, so it is left behind. Plain `spawn` would refuse to start the first worker.
"""

import collections
import multiprocessing as mp
import re
import sqlite3
import sys
import tempfile

MISSPELLED = ["multiprocesing", "inheritence", "proces", "proggram", "documantation"]


def pieces(word):
    """Return the pieces of three letters that a word is made of."""
    padded = f"  {word} "
    return {padded[place : place + 3] for place in range(len(padded) - 2)}


class Speller:
    """Knows the words of some files, and corrects others with its workers."""

    def __init__(self, paths, folder):
        self.counts = collections.Counter()
        self.index = collections.defaultdict(set)
        self.reader = self._read(paths)
        for word in self.reader:
            self.counts[word] += 1
            for piece in pieces(word):
                self.index[piece].add(word)
            if len(self.counts) == 1000:  # enough; the reader stays where it is
                break
        self.cache = sqlite3.connect(f"{folder}/cache.db")
        self.log = open(f"{folder}/spelling.log", "a", encoding="utf-8")
        self.tasks, self.answers = mp.SimpleQueue(), mp.SimpleQueue()

    @staticmethod
    def _read(paths):
        for path in paths:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    yield from re.findall(r"[a-z]{3,}", line.lower())

    def correct(self, word):
        """Return the known word that shares most pieces with `word`."""
        shared = collections.Counter(known for piece in pieces(word) for known in self.index.get(piece, ()))
        likeness = {
            known: count / len(pieces(word) | pieces(known)) for known, count in shared.most_common(20)
        }
        return max(likeness, key=lambda known: (likeness[known], self.counts[known]), default=word)

    def work(self):
        """Answer until there is no more to do."""
        while (word := self.tasks.get()) is not None:
            self.answers.put((word, self.correct(word)))

    def run(self, words, count=2):
        """Correct all `words` with `count` workers."""
        workers = [mp.Process(target=self.work) for _ in range(count)]
        for worker in workers:
            worker.start()
        for word in [*words, *[None] * count]:
            self.tasks.put(word)
        for word, known in sorted(self.answers.get() for _ in words):
            print(word, "->", known)
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        speller = Speller(sys.argv[1:] or [__file__] * 2, folder)
        speller.run(MISSPELLED)
        speller.cache.close()
        speller.log.close()
