"""A variant of `pretraining.py` in torch: Hugging Face's BERT at the paper's size, as fast as it is honestly made.

Micro-batches of 32 patients sorted by length and padded to their longest, masked states gathered before the decoder,
the prolonged-LOS head, dropout, clipping, fused AdamW. Lengths are of the same model as ours; batches are made inside
the round, as ours are; on a GPU while the micro-batch before is computed. Needs the extra `parity`, and nothing else of
this package.

    python benchmarks/pretraining_torch.py SIZE BATCH_SIZE STEPS [padded] [bfloat16] [cuda] [micro=PATIENTS]
"""

import sys

import numpy as np
import torch
import transformers
from side_by_side import serve
from transformers import BertConfig, BertModel

MICRO_BATCH = 32
"""Patients; fastest on a CPU."""


class Heads(torch.nn.Module):
    """What BERT has before the decoder, its bias, and prolonged LOS."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.dense, self.layer_norm = torch.nn.Linear(width, width), torch.nn.LayerNorm(width)
        self.bias = torch.nn.Parameter(torch.zeros(size))
        self.prolonged_los = torch.nn.Linear(width, 2)


class Training:
    """Steps on made patients."""

    def __init__(
        self, size: int, batch_size: int, *, padded: bool, bfloat16: bool, device: str = "cpu", micro_batch: int
    ):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=size,
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=6,
            intermediate_size=64,
            max_position_embeddings=512,
            type_vocab_size=512,
            hidden_act="gelu_pytorch_tanh",
        )
        self.model = BertModel(config, add_pooling_layer=False).train().to(device)
        self.heads = Heads(size, 192).to(device)
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-5, fused=True)
        self.rng, self.size, self.batch_size = np.random.default_rng(0), size, batch_size
        lengths = np.round(self.rng.lognormal(np.log(15) - 0.5, 1.0, 20_000))
        self.lengths = np.clip(lengths, 3, 512).astype(int)
        self.padded, self.bfloat16, self.device, self.micro_batch = padded, bfloat16, device, micro_batch

    def batch(self, patients: np.ndarray) -> list[torch.Tensor]:
        """Codes, attention mask, visits, ranks, masked places, targets, prolonged stays."""
        lengths = self.lengths[patients]
        slots = np.arange(512 if self.padded else int(lengths.max()))[None]
        real = slots < lengths[:, None]
        codes = np.where(real, self.rng.integers(16, self.size, real.shape), 0)
        who, place = np.arange(len(patients)), (self.rng.random(len(patients)) * lengths).astype(int)
        targets = codes[who, place].copy()
        codes[who, place] = 1
        stays = self.rng.random(len(patients)) < 0.15
        columns = codes, real, np.where(real, slots // 2 + 1, 0), np.where(real, slots % 2, 0), place, targets, stays
        return [torch.from_numpy(column.astype(np.int64)).to(self.device, non_blocking=True) for column in columns]

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        patients = self.rng.choice(len(self.lengths), self.batch_size, replace=False)
        patients = patients[np.argsort(self.lengths[patients])]
        for part in np.array_split(patients, max(1, self.batch_size // self.micro_batch)):
            codes, mask, visits, ranks, place, targets, stays = self.batch(part)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
                states = self.model(
                    input_ids=codes, attention_mask=mask, token_type_ids=visits, position_ids=ranks
                ).last_hidden_state
                inner = self.heads.dense(states[torch.arange(len(part), device=self.device), place])
                inner = self.heads.layer_norm(torch.nn.functional.gelu(inner, approximate="tanh"))
                table = self.model.embeddings.word_embeddings.weight
                logits = torch.nn.functional.linear(inner, table, self.heads.bias)
                stay_logits = self.heads.prolonged_los((states * mask[..., None]).sum(1))
            loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
            loss = loss + torch.nn.functional.cross_entropy(stay_logits.float(), stays, reduction="sum")
            (loss / self.batch_size).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


def main(size: int, batch_size: int, steps: int, options: list[str]) -> None:
    """Answer to `side_by_side.interleaved`; warmed up by a step, on a GPU by a round."""
    device = "cuda" if "cuda" in options else "cpu"
    (micro_batch,) = [int(one.removeprefix("micro=")) for one in options if one.startswith("micro=")] or [MICRO_BATCH]
    switches = {"padded": "padded" in options, "bfloat16": "bfloat16" in options}
    training = Training(size, batch_size, device=device, micro_batch=micro_batch, **switches)

    def take(steps: int) -> None:
        for _ in range(steps):
            training.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def one_round() -> float:
        take(steps)
        return float(steps * batch_size)

    facts = {"torch": torch.__version__, "transformers": transformers.__version__, "micro_batch": micro_batch}
    if device == "cuda":
        take(steps)  # kernels are loaded, memory is taken
        facts |= {"device": torch.cuda.get_device_name(), "peak_device_gib": torch.cuda.max_memory_allocated() / 2**30}
    else:
        take(1)
        facts["threads"] = torch.get_num_threads()
    serve(one_round, **facts)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4:])
