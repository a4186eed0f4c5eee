"""`python -m medbert_jax` is `medbert`, whose entry point is here: it listens to Ctrl-C before anything is imported."""

import sys

from medbert_jax.command_end import listen


def main() -> None:
    """Run the command of the process's arguments."""
    listen("medbert", resumes=sys.argv[1:2] in (["pretrain"], ["finetune"], ["study"]))
    from medbert_jax.cli import main as run

    run()


if __name__ == "__main__":
    main()
