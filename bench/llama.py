"""llama.cpp on CPUs, as the benchmarks beside it run it: KV in f16, nothing said."""

import sys

import llama_cpp as ll
import numpy as np

BATCH = 512

# llama.cpp tells much on standard error; what is called has to stay.
_silent = ll.llama_log_callback(lambda level, text, data: None)


def start():
    ll.llama_log_set(_silent, None)
    ll.llama_backend_init()


def load(path):
    params = ll.llama_model_default_params()
    params.n_gpu_layers = 0
    model = ll.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama.cpp: cannot load {path}")
    return model


class Context:
    """One context with `slots` sequences of up to `capacity` tokens."""

    def __init__(self, model, slots, capacity, threads, flash=True, unified=False):
        self.slots = slots
        self.vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
        params = ll.llama_context_default_params()
        params.n_ctx = slots * capacity
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = slots
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = ll.GGML_TYPE_F16
        params.flash_attn_type = (
            ll.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.kv_unified = unified
        params.no_perf = True
        self.handle = ll.llama_init_from_model(model, params)
        if not self.handle:
            sys.exit("llama.cpp: cannot make a context")
        self.memory = ll.llama_get_memory(self.handle)
        self.batch = ll.llama_batch_init(BATCH, 0, slots)

    def close(self):
        ll.llama_batch_free(self.batch)
        ll.llama_free(self.handle)

    def decode(self, entries):
        """Runs (token, position, sequence, wants logits), up to BATCH, as one batch."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wants) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants
        if ll.llama_decode(self.handle, batch) != 0:
            sys.exit("llama.cpp: llama_decode failed")
        ll.llama_synchronize(self.handle)

    def logits(self, entry):
        """Of an entry of the last batch that wanted them; -1 is the last. A view."""
        row = ll.llama_get_logits_ith(self.handle, entry)
        return np.ctypeslib.as_array(row, (self.vocabulary,))
