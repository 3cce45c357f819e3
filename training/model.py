"""The model, from top to bottom: what an item is, what a user is doing, and where the two meet.

References
- Vaswani et al. 2017, Attention Is All You Need (attention, feed-forward).
- Xiong et al. 2020, On Layer Normalization in the Transformer Architecture (norm before each part).
- Kang & McAuley 2018, Self-Attentive Sequential Recommendation (causal, items tied on both sides).
- Borisyuk et al. 2025, From Features to Transformers: Redefining Ranking for Scalable Impact (LiGR:
  a gate decides how much of each part's answer is added).

It does not know users: a user is what the events say.
Shapes in comments: B sequences, L events each, D = dim, N items, H heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nearline.sequence import GAP_BUCKETS, HOURS, PAD, VALUE_BUCKETS
from training.codes import own_vectors
from training.neighbours import Graph, spread, sums

GRAPH, LOANS = (tuple(f"{name}_{part}" for part in Graph._fields) for name in ("graph", "loans"))
"""The item tower's buffers that hold its graphs."""

TOWER = "item_tower."

DELTA, WORDS, GIVEN = TOWER + "delta.", TOWER + "content.words", TOWER + "content.given"
FRESH, TOUCHED = TOWER + "fresh", TOWER + "touched"
"""The weights that have a row for each item."""


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build the model.

    `length` is the longest sequence that it reads, `given` how long the vectors are that items
    were given, for each modality (0 for one that is not there). `item_codes` says of how many
    shared parts an item's own vector is put together; 0: each has a whole one.
    """

    items: int
    types: int
    content_width: int
    dim: int
    heads: int
    layers: int
    length: int
    dropout: float
    content_buckets: int
    id_dropout: float
    temperature: float
    modality_dropout: float = 0.0
    given: Sequence[int] = (0, 0, 0)
    item_codes: int = 0


class CausalAttention(nn.Module):
    """Multi-head self-attention: an event looks at itself and at those before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape  # noqa: N806
        qkv = self.qkv(x).view(B, L, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, L, D / H) each
        # Padding lies at the right, where no real event looks: the causal mask is all it takes.
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(B, L, D))
        return y  # (B, L, D)


class FeedForward(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wide = nn.Linear(config.dim, 4 * config.dim)
        self.out = nn.Linear(4 * config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(F.gelu(self.wide(x)))
        return y  # (B, L, D)


class Gated(nn.Module):
    """A part that reads a normalised copy of the stream and adds to it what its gate lets pass."""

    def __init__(self, config: ModelConfig, part: nn.Module) -> None:
        super().__init__()
        self.norm, self.part = nn.LayerNorm(config.dim), part
        self.gate = nn.Linear(config.dim, config.dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.added(x, self.part(self.norm(x)))  # (B, L, D)

    def added(self, x: Tensor, answer: Tensor) -> Tensor:
        """The stream with the part's answer to it."""
        y: Tensor = x + self.drop(answer * torch.sigmoid(self.gate(x)))
        return y  # (B, L, D)


class Block(nn.Module):
    """Attention, then feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Gated(config, CausalAttention(config))
        self.feed = Gated(config, FeedForward(config))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.feed(self.attention(x))
        return y  # (B, L, D)


class Content(nn.Module):
    """What an item says about itself: its words, and a projection of each vector it was given."""

    words: Tensor
    given: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.modality_dropout
        self.widths = [width for width in config.given if width]
        self.bag = nn.EmbeddingBag(
            config.content_buckets + 1, config.dim, mode="mean", padding_idx=PAD
        )
        self.projections = nn.ModuleList(
            nn.Linear(width, config.dim, bias=False) for width in self.widths
        )
        shape = config.items, config.content_width
        self.register_buffer("words", torch.zeros(shape, dtype=torch.int64))
        given = torch.zeros(config.items, sum(self.widths), dtype=torch.float16)
        self.register_buffer("given", given)
        with torch.no_grad():
            nn.init.normal_(self.bag.weight, std=0.1)[PAD] = 0

    def forward(self, rows: Tensor | None = None) -> Tensor:
        words, given = (_taken(part, rows) for part in (self.words, self.given))
        vectors: Tensor = self.bag(words)
        parts = given.split(self.widths, dim=1)
        for part, projection in zip(parts, self.projections, strict=True):
            # A modality that is missing is 0; some are left out, so that each stands for itself.
            vectors = vectors + projection(shown(part.float(), self.dropout, self.training))
        return vectors  # (N, D), or those of some rows (R, D)


def _taken(table: Tensor, rows: Tensor | None) -> Tensor:
    """Some rows of a table; all without them."""
    return table if rows is None else table[rows]


def shown(rows: Tensor, dropout: float, training: bool) -> Tensor:
    """In training some rows of a matrix are 0, others stay as they are."""
    if not (training and dropout):
        return rows
    return rows * (torch.rand(len(rows), 1, device=rows.device) >= dropout)


class ItemTower(nn.Module):
    """An item is what its content says, what was learned of this very item, and its neighbours.

    `touched` (bool (N,)) are items of which something was learned. One that was not, and has no
    neighbours, borrows from learned ones that are like it. `fresh` ones came after the night.
    """

    fresh: Tensor
    touched: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.id_dropout = config.id_dropout
        self.content = Content(config)
        self.delta = own_vectors(config.items, config.dim, config.item_codes)
        self.share = nn.Parameter(torch.ones(()))
        self.loan = nn.Parameter(torch.tensor(0.5))
        for name in ("fresh", "touched"):
            self.register_buffer(name, torch.zeros(config.items, dtype=torch.bool))
        for names in (GRAPH, LOANS):
            for name, part in zip(names, Graph.empty(config.items), strict=True):
                self.register_buffer(name, part)

    @property
    def graph(self) -> Graph:
        """Which items lend each other their vectors; at first none do."""
        return Graph(*(getattr(self, name) for name in GRAPH))

    @property
    def loans(self) -> Graph:
        """Which items lend to each, and the share of each; at first none do."""
        return Graph(*(getattr(self, name) for name in LOANS))

    def link(self, graph: Graph) -> None:
        """From now on neighbours are those of `graph`."""
        self._keep(GRAPH, graph)

    def borrow(self, loans: Graph) -> None:
        """From now on items lend as `loans` says."""
        self._keep(LOANS, loans)

    def _keep(self, names: tuple[str, ...], graph: Graph) -> None:
        for name, part in zip(names, graph, strict=True):
            setattr(self, name, part)

    def touch(self, items: np.ndarray) -> None:
        """From now on something is learned of some items, by their rows."""
        asked = torch.zeros_like(self.touched)
        asked[torch.from_numpy(np.unique(items))] = True
        self.delta.begin(asked & ~self.touched, self.touched, self.graph)
        self.touched |= asked

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """The items' vectors (N, D), or those of some rows (R,), int64 and ascending."""
        known = self._known(rows)
        if rows is not None:
            return self._some(rows, known)
        content, own = self._own()
        vectors = own
        if len(self.graph.items):
            vectors = own + self.share * spread(own, self.graph)
        new = content + self.loan * sums(vectors, self.loans)
        return torch.where(known.unsqueeze(1), vectors, new)  # (N, D)

    def _known(self, rows: Tensor | None) -> Tensor:
        """Which items do not borrow."""
        known = _taken(self.touched | (self.graph.starts.diff() > 0), rows)
        if self.training and self.id_dropout:
            # Some items are shown as new ones are, so that these learn to stand for themselves.
            known = known & (torch.rand(known.shape, device=known.device) >= self.id_dropout)
        return known

    def _own(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Content alone, and with what was learned of the very items."""
        content: Tensor = self.content(rows)
        delta = self.delta.all() if rows is None else self.delta(rows)
        return content, content + delta * _taken(self.touched, rows).unsqueeze(1)

    def _some(self, rows: Tensor, known: Tensor) -> Tensor:
        """What `forward` tells of some rows, without the items that they do not need."""
        borrows = rows[~known]
        told = torch.cat([rows, self.loans.around(borrows)]).unique()
        read = torch.cat([told, self.graph.around(told)]).unique()
        content, own = self._own(read)
        vectors = F.embedding(torch.searchsorted(read, told), own)
        vectors = vectors + self.share * sums(own, self.graph.part(told, read))
        new = F.embedding(torch.searchsorted(read, borrows), content)
        new = new + self.loan * sums(vectors, self.loans.part(borrows, told))
        vectors = F.embedding(torch.searchsorted(told, rows), vectors)
        return vectors.index_put((~known,), new)  # (R, D)


class UserEncoder(nn.Module):
    """Events to states: what the user will turn to next, as a direction among the items."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.type_embedding = nn.Embedding(config.types + 1, config.dim)
        self.gap_embedding = nn.Embedding(GAP_BUCKETS + 1, config.dim)
        self.position_embedding = nn.Embedding(config.length, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        tables = (self.type_embedding, self.gap_embedding, self.position_embedding)
        for embedding in tables:
            nn.init.normal_(embedding.weight, std=0.02)
        # At first these say nothing, and where data have none they never do.
        self.value_embedding, self.hour_embedding = (
            nn.Embedding.from_pretrained(
                torch.zeros(rows + 1, config.dim), freeze=False, padding_idx=PAD
            )
            for rows in (VALUE_BUCKETS, HOURS)
        )

    def forward(
        self, items: Tensor, types: Tensor, gaps: Tensor, values: Tensor, hours: Tensor
    ) -> Tensor:
        """States of length 1; `items` are vectors (B, L, D), the others numbers (B, L)."""
        x = self.read(items, types, gaps, values, hours)
        for block in self.blocks:
            x = block(x)
        return F.normalize(self.norm(x), dim=-1)  # (B, L, D)

    def read(
        self, items: Tensor, types: Tensor, gaps: Tensor, values: Tensor, hours: Tensor
    ) -> Tensor:
        """What the first block reads of each event."""
        position = self.position_embedding.weight[: types.shape[1]]  # (L, D)
        x = items + self.type_embedding(types) + self.gap_embedding(gaps) + position
        x = self.drop(x + self.value_embedding(values) + self.hour_embedding(hours))
        return x  # (B, L, D)


class Model(nn.Module):
    """Item tower and user encoder in one space.

    `words` is int64 (N, content_width), `given` float16 (N, sum of the config's widths).
    """

    def __init__(self, config: ModelConfig, words: Tensor, given: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.item_tower = ItemTower(config)
        self.user_encoder = UserEncoder(config)
        self.item_tower.content.words.copy_(words)
        if given is not None:
            self.item_tower.content.given.copy_(given)

    @classmethod
    def restored(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> "Model":
        """The model whose `state_dict` was kept."""
        model = cls(config, weights[WORDS])
        model.item_tower.link(Graph(*(weights[TOWER + name] for name in GRAPH)))
        model.item_tower.borrow(Graph(*(weights[TOWER + name] for name in LOANS)))
        model.load_state_dict(weights)
        return model

    def forward(
        self,
        items: Tensor,
        *told: Tensor,
        rows: Tensor | None = None,
        vectors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The state after each event (B, L, D) and the item matrix (N, D), both of length 1.

        `items` and what else is `told` are int64 (B, L), as nearline.sequence makes them. With
        `rows` (R,), int64 and ascending, the matrix has these items alone; all of `items` must be
        there. `vectors` are what the item tower says of them, where that is known.
        """
        if vectors is None:
            vectors = self.item_tower(rows)
        if rows is not None:
            items = torch.where(items == PAD, PAD, torch.searchsorted(rows, items - 1) + 1)
        states = self.user_encoder(F.embedding(items, input_table(vectors)), *told)
        return states, F.normalize(vectors, dim=-1)

    def item_matrix(self) -> Tensor:
        """Item vectors of length 1 (N, D), in the vocabulary's order."""
        return F.normalize(self.item_tower(), dim=-1)


def input_table(vectors: Tensor) -> Tensor:
    """Item vectors as the encoder looks them up: row 0 is padding, row r + 1 is item r."""
    return F.pad(vectors, (0, 0, 1, 0))  # (N + 1, D)


def rearranged(model: Model, rows: Tensor, words: Tensor, given: Tensor | None = None) -> Model:
    """The same model of other items: item i is the old item `rows[i]`, a new one where that is -1.

    A new item has no delta, no neighbours and nobody who lends: its vector comes from its `words`
    (N', content_width) and what it was `given` (N', widths) at once. Without `given` none has any.
    """
    config = ModelConfig(**{**vars(model.config), "items": len(rows)})
    known = (rows >= 0).unsqueeze(1)  # (N', 1)
    tower = model.item_tower
    delta = getattr(tower.delta, tower.delta.per_item).detach()[rows.clamp(min=0)] * known
    graphs = {GRAPH: tower.graph.rearranged(rows), LOANS: tower.loans.rearranged(rows)}
    if given is None:
        given = tower.content.given.new_zeros(len(rows), tower.content.given.shape[1])
    fresh, touched = (mask[rows.clamp(min=0)] for mask in (tower.fresh, tower.touched))
    changed = {DELTA + tower.delta.per_item: delta, WORDS: words, GIVEN: given}
    changed |= {FRESH: fresh | (rows < 0), TOUCHED: touched & (rows >= 0)}
    for names, graph in graphs.items():
        changed |= {TOWER + name: part for name, part in zip(names, graph, strict=True)}
    return Model.restored(config, model.state_dict() | changed)
