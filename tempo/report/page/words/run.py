"""Words of the report: the verdict and the key figures."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

# ---- verdict --------------------------------------------------------------------------------------------

TONES: Final = {
    "good": Text("Protected as promised", "所定の保護が維持されました"),
    "care": Text("Protected, with limits to know", "保護を適用しましたが、留意すべき限界があります"),
    "bad": Text("Do not rely on this run", "本実行の結果には依拠できません"),
}
SENT: Final = Text(
    "{share} of the linear arithmetic of this run was done by {workers} workers that nobody has to trust; keys, "
    "plain data, labels and weights did not leave the trusted machine.",
    "本実行の線形演算のうち {share} を、信頼を前提としないワーカー {workers} 台が処理しました。鍵、平文の"
    "データ、ラベル、重みは、信頼するマシンの外に出ていません。",
)
SENT_PUBLIC: Final = Text(
    "{share} of the linear arithmetic of this run was done by {workers} workers that nobody has to trust; keys, "
    "plain data and labels did not leave the trusted machine, nor weights but for those declared public, which were "
    "sent in the clear.",
    "本実行の線形演算のうち {share} を、信頼を前提としないワーカー {workers} 台が処理しました。鍵、平文の"
    "データ、ラベルは、信頼するマシンの外に出ていません。モデルの重みは、公開と宣言されたものだけを平文で送信しました。",
)
SENT_CLEAR: Final = Text(
    "{share} of the linear arithmetic was sent to {workers} workers in the clear: nothing was hidden from them.",
    "線形演算の {share} を、秘匿せず平文のままワーカー {workers} 台へ送りました。内容はすべて事業者から見えます。",
)
NOTHING_SENT: Final = Text(
    "Nothing left the trusted machine in this run: all of it was computed there.",
    "本実行では、すべての計算を信頼するマシンの内部で行い、外部には何も送っていません。",
)
ALL_RIGHT: Final = Text(
    "All {checks} replies were checked, and all were right.",
    "返された結果 {checks} 件をすべて検証し、いずれも正しいことを確認しました。",
)
SOME_WRONG: Final = Text(
    "{failed} of {checks} checks failed; none of these replies was used, the work was done again, and the "
    "workers at fault ({names}) were set aside.",
    "検証 {checks} 件のうち {failed} 件で不正な結果を検出しました。検出した結果は使用せずに計算をやり直し、"
    "該当ワーカー（{names}）を切り離しました。",
)
ON_PURPOSE: Final = Text(
    "These lies were told on purpose, to show that they are found: {told} were told.",
    "この不正は、検出できることを示すために意図的に発生させたものです（計 {told} 件）。",
)
SAME_ACCURACY: Final = Text(
    "The model is as accurate as one trained plainly: {tempo} against {plain}.",
    "モデルの正解率は {tempo} で、通常の学習（{plain}）と同等です。",
)
OTHER_ACCURACY: Final = Text(
    "The comparison with plain training broke a promise: {tempo} against {plain}.",
    "通常の学習との比較で、約束した条件を満たしませんでした（正解率 {tempo}、通常の学習 {plain}）。",
)
HEURISTIC: Final = Text(
    "What the provider saw was mixed in secret coordinates. That is a heuristic, not a proof: {found}.",
    "事業者から見えたのは、秘密の座標系で混合された数値だけです。ただし、これは経験則に基づく"
    "方式であり、安全性の数学的な証明はありません（{found}）。",
)
PAPERS_MASK: Final = Text(
    "The scheme is the published baseline, kept for comparison, and several attacks undo it: {found}. It protects "
    "no secret.",
    "この方式は比較用に残している論文の手法で、複数の攻撃によって復元されます（{found}）。機密データの保護には"
    "使用できません。",
)
PROVEN: Final = Text(
    "What each owner of workers saw is independent of the data given the sizes, which is proven, as long as no two "
    "of the owners pool what they were sent. Sizes that follow the data are seen: tokens of each expert, lengths of "
    "packed sequences.",
    "ワーカーの各所有者が受け取った数値は、その大きさ（件数や長さ）を条件とすれば、元のデータと統計的に独立であることが"
    "証明されています。ただし、所有者どうしが受信内容を持ち寄らないことが前提です。また、各エキスパートのトークン数や系列長など、データで"
    "決まる大きさは見えます。",
)
ONE_OWNER: Final = Text(
    "But all workers had one owner in this run (unsafe_one_owner), who could see everything.",
    "ただし、本実行ではすべてのワーカーの所有者が同一であり（unsafe_one_owner）、その所有者は全内容を復元できます。",
)
OF_ATTACKS: Final = Text(
    "of {n} attacks measured {where}, {parts}", "{where}測定した攻撃 {n} 件のうち、{parts}"
)
WHERE_SHIPPED: Final = Text("on reference runs", "参照実行で")
WHERE_BOTH: Final = Text("for this report and on reference runs", "本レポート用または参照実行で")
WHERE_GIVEN: Final = Text("for this report", "本レポート用に")
BROKEN_BY: Final = Text("What broke it: {names}.", "突破した攻撃：{names}。")
BREAKER: Final = Text("{attack} (presumes: {needs})", "{attack}（前提：{needs}）")
NO_ATTACKS: Final = Text("no attack was measured", "攻撃の測定結果はありません")
N_BROKEN: Final = Text("{n} broke it", "突破 {n} 件")
N_LEAKS: Final = Text("{n} found a leak", "漏えいあり {n} 件")
N_VISIBLE: Final = Text("{n} saw what is documented as visible", "仕様上見えるもののみ {n} 件")
N_UNDECIDED: Final = Text("{n} are undecided", "判定保留 {n} 件")
N_HOLDS: Final = Text("{n} found nothing", "発見なし {n} 件")
N_SKIPPED: Final = Text("{n} not measured", "未測定 {n} 件")
FIRST_TO_READ: Final = Text("read first: {names}", "要確認：{names}")
MISSING: Final = Text("Not part of this report: {what}.", "本レポートに含まれない項目：{what}。")
MISSING_ATTESTATION: Final = Text("attestation of the hardware", "ハードウェアの構成証明（アテステーション）")
MISSING_AUDIT: Final = Text("the audit log", "監査ログ")
MISSING_ACCURACY: Final = Text("accuracy against plain training", "通常の学習との正解率の比較")
MISSING_COST: Final = Text("cost", "費用")
FALLBACK: Final = Text(
    "For want of workers, {n} pieces of work were done in the trusted machine.",
    "ワーカーが不足したため、{n} 件の処理を信頼するマシンの内部で実行しました。",
)

# ---- key figures ----------------------------------------------------------------------------------------

KEY_OFFLOADED: Final = Text("done by untrusted workers", "信頼対象外のワーカーが処理した演算の割合")
KEY_CHECKS: Final = Text(
    "wrong replies caught, of {checks} checked", "検出した不正な結果（検証 {checks} 件中）"
)
KEY_ACCURACY: Final = Text("accuracy, plain training {plain}", "正解率（通常の学習 {plain}）")
KEY_SLOWER: Final = Text("the time of plain training here", "通常の学習に対する所要時間（本環境）")
KEY_ATTACKS: Final = Text(
    "attacks that broke it or found a leak, of {n} measured", "突破または漏えいに至った攻撃（測定 {n} 件中）"
)
KEY_SENT: Final = Text("sent and received", "送受信データ量")
KEY_ENCODINGS: Final = Text("encodings saved by the key shift", "鍵シフトで省いた符号化の割合")

# ---- scheme ---------------------------------------------------------------------------------------------

SCHEMES: Final = {
    "mixing": Text(
        "Each operand is multiplied on both sides by a secret basis: secret permutations and real scales in turns "
        "with block Hadamard mixing, drawn anew for every operation. A heuristic: it stands on what attacks were "
        "measured to find, not on a proof.",
        "各オペランドの両側に秘密の基底（秘密の置換・実数スケールとブロック・アダマール混合の繰り返し）を掛けます。"
        "行の基底は演算ごとに新しく生成します。経験則に基づく方式であり、根拠は証明ではなく攻撃の実測結果です。",
    ),
    "monomial": Text(
        "The mask of the published paper: a permutation and a random coefficient on each axis. Kept as the baseline; "
        "several attacks undo it.",
        "論文で提案されたマスク（各軸の置換と乱数係数）です。比較の基準として残しており、複数の攻撃で復元されます。",
    ),
    "shares": Text(
        "Each operand is split into random shares over workers of different owners. Proven: what any one owner sees "
        "is independent of the operand. Assumed: no two owners pool what they were sent.",
        "各オペランドを乱数のシェアに分割し、所有者の異なるワーカーに配ります（秘密分散）。どの所有者が受け取る情報も、"
        "単独では元の値と独立であることが証明されています。所有者どうしが受信内容を持ち寄らないことが前提です。",
    ),
    "unsafe_none": Text(
        "Nothing is hidden. For debugging and baselines.",
        "秘匿を行いません。デバッグおよび比較の基準として使用します。",
    ),
}
KEY_SHIFT_ON: Final = Text(
    "Key shift is on: three encodings a layer and step instead of six. A worker can then recognise a batch or a "
    "model that it already knows.",
    "鍵シフトは有効です。1 層 1 ステップあたりの符号化は 6 回ではなく 3 回です。その代わり、ワーカーは既に知っている"
    "バッチやモデルを識別できます。",
)
KEY_SHIFT_OFF: Final = Text(
    "Key shift is off: forward and backward use fresh keys, for three more encodings a layer and step.",
    "鍵シフトは無効です。順伝播と逆伝播で別々の鍵を使用するため、1 層 1 ステップあたりの符号化が 3 回増えます。",
)
SETTINGS: Final = Text("Settings that differ from the defaults", "既定値から変更した設定")
SETTINGS_NONE: Final = Text("All settings are the defaults.", "設定はすべて既定値です。")
SETTING: Final = Text("Setting", "設定項目")
