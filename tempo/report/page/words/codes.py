"""Words for codes: what is visible, events, parts of the work, reasons why a layer stayed."""

from __future__ import annotations

import re
from typing import Final

from tempo.report.page.text import Text

CLASSES: Final = {
    "nothing": Text("nothing", "なし"),
    "shapes": Text("shapes only", "形状のみ"),
    "invariants": Text("invariants", "不変量"),
    "directions": Text("directions", "主要な方向"),
    "entries": Text("entries", "個々の値"),
    "everything": Text("everything", "すべて"),
}
#: What a class comes to.
CLASS_MEANS: Final = {
    "nothing": Text("nothing", "なし"),
    "shapes": Text("shapes alone", "形状のみ"),
    "invariants": Text(
        "invariants: properties such as ranks and spectra that survive mixing, and no single value",
        "不変量（階数やスペクトルなど、混合後も残る性質。個々の値は含まない）",
    ),
    "directions": Text("the strongest directions of layers", "層の主要な方向"),
    "entries": Text("every entry, up to order and scale", "順序と尺度を除く個々の値"),
    "everything": Text("everything", "すべての内容"),
}
#: Code: what is seen, what takes it away, in Japanese; English stands in tempo/secrecy/visible.py.
VISIBLE_JA: Final = {
    "shapes": ("テンソルの大きさ（モデルの構造。大きさがデータで決まる場合は、各エキスパートに割り当てられたトークン数や系列長の分布）、処理時刻、ステップ数、同じ重みを使う演算", "その層を TEE に残す：protect(keep=[...])"),
    "rows": ("送信した行数（ゼロ行の数が分かる。エキスパートおよび系列の各時点ごと）。設定 repeats により逆伝播を送らなかった場合はその事実", "scheme='shares'"),
    "evenness": ("各 X と dY について、行の大きさに 30 倍を超える差があるか（該当時は float32 で送信）", "wire='fp32' かつ arithmetic='fp32'"),
    "norms": ("値の絶対的な大きさ（数 % の誤差で）。重みや勾配の増減が分かる", "gain=16"),
    "block-norms": ("行および特徴のブロック間の相対的な大きさ（係数のばらつきの範囲で）", "scheme='shares'"),
    "rank": ("値の階数。零空間が基底の手掛かりになる（休止ユニット、クラス数が少ない場合）", "scheme='shares'"),
    "planes": ("X が満たす単一の線形制約（LayerNorm の平面など）。中心化の雑音でわずかに崩れるのみ", "decoys=4 以上"),
    "repeats": ("X と dY の重複した行（平均プーリング、一様な背景など）", "repeats=0（該当する演算を TEE に残す）"),
    "spectrum": ("順伝播と逆伝播に共通するスペクトル。既知のバッチやモデルであれば識別される", "key_shift=False（符号化が 3 回増える）"),
    "class": ("単一クラスのバッチのクラス（比較用の学習結果を持つ者に対して）", "scheme='shares'、またはバッチのシャッフル"),
    "reuse": ("同じ W' で処理した値の共通部分。2 件以上で独立な特徴、unsafe_many_uses では行空間全体（一部の値を知る者に対して）", "weight_uses=1"),
    "known-directions": ("W を知る者に対して、特徴の主要な方向（deflate と decoys で弱まる）", "scheme='shares'"),
    "known-weights": ("公開と宣言され平文で送信される重みそのもの", "public=[...] から外す"),
    "entries": ("順序と係数を除くすべての値。ゼロはゼロのまま見える", "scheme='mixing' または 'shares'"),
    "everything": ("平文", "scheme='mixing' または 'shares'"),
}  # fmt: skip
EVENTS: Final = {
    "lost": Text("a worker was lost", "ワーカーの喪失"),
    "rejoined": Text("it came back", "ワーカーの復帰"),
    "deadline": Text("too late, and dropped for it", "期限超過による切断"),
    "protocol": Text("a worker broke the protocol", "プロトコル違反"),
    "check_failed": Text("a wrong reply was found and not used", "不正な結果を検出（不使用）"),
    "refused": Text("a worker said it cannot do a job", "ワーカーによる処理の拒否"),
    "quarantined": Text("set aside", "隔離"),
    "probation": Text("back from being set aside", "隔離の解除"),
    "evicted": Text("dropped operands, which were sent again", "保持データの破棄（再送）"),
    "hedged": Text("slow, so that another worker got the job too", "遅延による重複依頼"),
    "retried": Text("a job was done again", "処理の再実行"),
}
PARTS: Final = {
    "encode": Text("encode (hide what is sent)", "符号化（送信データの秘匿）"),
    "decode": Text("decode (open replies)", "復号（結果の復元）"),
    "check": Text("check replies", "結果の検証"),
    "keys": Text("draw keys", "鍵の生成"),
    "lower": Text("bring layers into products", "層から行列積への変換"),
    "local": Text("compute in the TEE", "TEE 内での計算"),
    "wait": Text("wait for workers", "ワーカーの応答待ち"),
    "send": Text("send", "送信"),
    "receive": Text("receive", "受信"),
    "worker": Text("worker computes", "ワーカーの計算"),
    "product": Text("worker: product", "ワーカー：積"),
    "grad_x": Text("worker: gradient of inputs", "ワーカー：入力の勾配"),
    "grad_w": Text("worker: gradient of weights", "ワーカー：重みの勾配"),
    "deflate": Text("strongest directions, in the TEE", "主要な方向の計算（TEE 内）"),
    "aside": Text("parts of products, in the TEE", "積の一部の計算（TEE 内）"),
    "repeats": Text("look for repeated rows", "重複行の確認"),
    "other": Text("other", "その他"),
}
#: Patterns of tempo/nn/placement.py, protect.py, offload.py, plan/plan.py.
_REASONS: Final = (
    (
        r"last weighted layer: its gradient gives away labels",
        "最終の重み付き層：勾配からラベルが判明するため",
    ),
    (
        r"weight of an embedding: a product with it gives away tokens",
        "埋め込み層の重み：積からトークンが判明するため",
    ),
    (r"kept by the user", "利用者の指定により保持"),
    (r"never offloaded, as the user asked", "利用者の指定により送信しない"),
    (r"as asked", "指定どおり"),
    (r"at most (\d+) input channels", r"入力チャネルが \1 以下（生の入力に近いため）"),
    (r"fewer than (\d+) rows", r"行数が \1 未満"),
    (r"fewer than (\d+) in-features", r"入力特徴数が \1 未満"),
    (r"fewer than (\d+) out-features", r"出力特徴数が \1 未満"),
    (r"more than (\d+) groups", r"グループ数が \1 を超過"),
    (r"a weight larger than a frame", "重みが通信フレームの上限を超過"),
    (r"depthwise", "デプスワイズ畳み込み"),
    (r"three-dimensional convolution", "3 次元畳み込み"),
    (r"product of two activations", "活性値どうしの積"),
    (
        r"attention: a softmax stands between its two products",
        "アテンション：2 つの積の間に softmax があるため",
    ),
    (r"weight is no matrix", "重みが行列でない"),
    (r"a vector", "ベクトル"),
    (r"operands of different dtypes", "データ型の不一致"),
    (r"cheaper in the TEE: (\S+) ms here, (\S+) ms there", r"TEE の方が有利（TEE \1 ms、ワーカー \2 ms）"),
    (r"(\S+) ms there, (\S+) ms here", r"ワーカーの方が有利（ワーカー \1 ms、TEE \2 ms）"),
)


def reason(text: str) -> Text:
    """Why a layer stayed; in Japanese where it is one of those known, else as it is."""
    for pattern, japanese in _REASONS:
        if (found := re.fullmatch(pattern, text)) is not None:
            return Text(text, found.expand(japanese))
    return Text.same(text)


def short_reason(text: str) -> Text:
    """The same without the milliseconds, which the columns beside it have."""
    if re.fullmatch(r"\S+ ms there, \S+ ms here", text):
        return Text("quicker there", "ワーカーの方が高速")
    if text.startswith("cheaper in the TEE:"):
        return Text("quicker in the TEE", "TEE の方が高速")
    return reason(text)


def of(known: dict[str, Text], name: str) -> Text:
    """A word, or the name itself where there is none."""
    return known.get(name, Text.same(name))


#: Starts of the session's notes (tempo/report/notes.py) that have words in Japanese; figures follow as they are.
_NOTES: Final = (
    (r"mixing is a heuristic: .*", "mixing は経験則に基づく方式です。測定結果と漏えいの範囲は docs/secrecy.md を参照してください。"),
    (r"scheme monomial is the paper's mask; .*", "monomial は論文のマスクであり、複数の攻撃で復元されます。機密データには mixing を使用してください。"),
    (r"scheme unsafe_none hides nothing", "unsafe_none は秘匿を行いません。"),
    (r"attack suite, scheme (\S+), measured (\S+) on the reference runs.*", r"方式 \1 に対する攻撃スイートの結果（\2 に参照実行で測定）は、「攻撃の測定結果」に示します。"),
    (r"with key shift a worker can recognise .*", "鍵シフトの使用時、ワーカーは既に知っているバッチやモデルを識別できます。"),
    (r"unsafe_truth: .*", "unsafe_truth：すべての平文と基底をディスクに書き出しました。"),
    (r"placement auto rests on timings: .*", "配置 auto は実測時間に基づくため、実行ごとに配置と丸めが異なる場合があります。"),
    (r"(\d+) gradients were computed here: .*", r"勾配 \1 件は、重複行が多いため TEE 内で計算しました（設定 repeats）。"),
    (r"features alike in all rows: (\d+) filled, (\d+) left .*", r"全行で同一の特徴：\1 件を補填、\2 件はそのまま（設定 fill）。"),
    (r"weights of (\d+) modules are public: .*", r"\1 個のモジュールの重みは公開と宣言されています。"),
)  # fmt: skip


def note(text: str) -> Text:
    """A note of the session; in Japanese where it is one of those known, else as it is."""
    for pattern, japanese in _NOTES:
        if (found := re.fullmatch(pattern, text, re.DOTALL)) is not None:
            return Text(text, found.expand(japanese))
    return Text.same(text)
