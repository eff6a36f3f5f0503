"""A lambda that closes over a dict is the target of a process; no guard, no pickling hints.

    python -m bequest run examples/lambda_closure.py

prints

    the child finds three
    the child changed its copy: {1: 'one', 2: 'two'}
    the parent still has: {1: 'one', 2: 'three'}

Plain `multiprocessing` prints the same under start method fork, and fails under spawn and forkserver. Set
START_METHOD to choose one.
"""

import multiprocessing as mp
import os

if "START_METHOD" in os.environ:
    mp.set_start_method(os.environ["START_METHOD"])


def main():
    some_data = {1: "one", 2: "three"}

    read = mp.Process(target=lambda: print("the child finds", some_data.get(2)))
    read.start()
    read.join()

    def change():
        some_data[2] = "two"
        print("the child changed its copy:", some_data)

    write = mp.Process(target=change)
    write.start()
    write.join()
    print("the parent still has:", some_data)


main()
