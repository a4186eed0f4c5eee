"""`python -m medbert_jax` is `medbert`."""

from medbert_jax.cli import main

if __name__ == "__main__":
    main()
