"""The ``lit-ssl`` program: finds the word, runs it, and prints a person's mistake in one line."""

from __future__ import annotations

import io
import os
import sys

from lit_ssl.cli.mistakes.one_line import debugging, one_line, raised_in
from lit_ssl.cli.words import run_word
from lit_ssl.errors import InputError

__all__ = ["main"]

_PRINTING = ("lit_ssl", "argparse", "jsonargparse", "rich")


def main() -> None:
    """Run ``lit-ssl`` with the words of ``sys.argv``.

    Mistakes of the user end it with one line on the error stream and exit status 2;
    ``LIT_SSL_DEBUG=1`` shows them with their traceback.
    """
    # The console script does not see modules of the working folder; appended, not inserted, so that
    # a file of the user never hides an installed package. It is how a user's own classes are found.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    # Names of files may hold what the terminal's encoding does not have.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        run_word(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError as error:  # nobody reads what is printed any more, as behind `| head`
        if raised_in(error).partition(".")[0] not in _PRINTING:
            raise
        # what is still in the buffer would be tried again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        if debugging():
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
