"""The variant in torch of `finetuning.py`: Hugging Face BERT's states under torch's Bi-GRU over packed sequences.

    python benchmarks/finetuning_torch.py --patients N --codes MEAN --kind train|predict --order sorted|random

Dynamic padding, fused Adam, gradients clipped; batches of patients of one length (sorted), or of random ones. Needs the
extra `parity`; run it with that environment's Python.
"""

import argparse
import time

import numpy as np
import torch
from side_by_side import serve
from transformers import BertConfig, BertModel

BEGAN = time.perf_counter()


def main() -> None:
    """Get ready, and serve rounds: an epoch, or a pass of predictions."""
    parser = argparse.ArgumentParser()
    for name, default in (("patients", 1000), ("codes", 43.0), ("vocabulary", 10_000), ("batch-size", 32)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--kind", default="train")
    parser.add_argument("--order", default="sorted")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)  # the lengths of length_model.py
    lengths = np.clip(np.round(rng.lognormal(np.log(options.codes) - 0.5, 1.0, options.patients)), 3, 512).astype(int)
    codes = [rng.integers(16, options.vocabulary, length) for length in lengths]
    labels = (rng.random(options.patients) < 0.15).astype(np.float32)
    bert = BertModel(
        BertConfig(
            vocab_size=options.vocabulary,
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=6,
            intermediate_size=64,
            max_position_embeddings=512,
            type_vocab_size=1000,
            hidden_act="gelu_pytorch_tanh",
        ),
        add_pooling_layer=False,
    )
    recurrent = torch.nn.GRU(192, 128, batch_first=True, bidirectional=True)
    dense = torch.nn.Linear(256, 1)
    parameters = [*bert.parameters(), *recurrent.parameters(), *dense.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-4, fused=True)
    training = options.kind == "train"
    bert.train(training)

    def step(patients: np.ndarray) -> None:
        own = lengths[patients]
        ids, mask, visits, ranks = (np.zeros((len(patients), own.max()), np.int64) for _ in range(4))
        for row, (patient, length) in enumerate(zip(patients, own, strict=True)):
            place = np.arange(length)
            ids[row, :length], mask[row, :length] = codes[patient], 1
            visits[row, :length], ranks[row, :length] = place // 2 + 1, place % 2
        ids, mask, visits, ranks = map(torch.from_numpy, (ids, mask, visits, ranks))
        with torch.set_grad_enabled(training):
            states = bert(input_ids=ids, attention_mask=mask, token_type_ids=visits, position_ids=ranks)
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                states.last_hidden_state, torch.from_numpy(own), batch_first=True, enforce_sorted=False
            )
            last = recurrent(packed)[1]
            logits = dense(torch.nn.functional.dropout(torch.cat([last[0], last[1]], -1), 0.1, training))[:, 0]
            if not training:
                logits.numpy()
                return
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels[patients]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

    def one_round() -> float:
        in_order = training and options.order == "random"
        order = rng.permutation(len(lengths)) if in_order else np.argsort(lengths, kind="stable")
        batches = [order[first : first + options.batch_size] for first in range(0, len(order), options.batch_size)]
        for number in rng.permutation(len(batches)):
            step(batches[number])
        return float(len(lengths))

    step(np.argsort(lengths)[: options.batch_size])
    serve(one_round, seconds_to_first_step=time.perf_counter() - BEGAN, mean_codes=float(lengths.mean()))


if __name__ == "__main__":
    main()
