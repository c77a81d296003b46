"""Words for what a run leaves open."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

NOTES: Final = Text("What the session itself says", "セッションからの注記")
ACCURACY: Final = Text(
    "Accuracy was not compared with plain training.", "通常の学習との精度比較は行っていません。"
)
ATTESTATION: Final = Text(
    "That the trusted machine is a genuine TEE running the right code was not verified for this report.",
    "信頼するマシンが真正な TEE であり、正しいコードを実行していたことは、本レポートでは検証していません。",
)
SIMULATED: Final = Text(
    "The evidence of the TEE was simulated: nothing is known about the hardware.",
    "TEE の証拠はシミュレーションによるものであり、ハードウェアについては何も確認できていません。",
)
AUDIT: Final = Text(
    "No audit log was verified: the events on this page are the session's own account.",
    "監査ログは検証していません。事象の記載はセッション自身の記録に基づきます。",
)
AUDIT_TIED: Final = Text(
    "No session in the audit log closed with the counts of this run: the log may be of another one.",
    "監査ログには、本実行と検証件数・通信量が一致するセッションの終了記録がありません。別の実行のログである可能性があります。",
)
ATTESTATION_TIED: Final = Text(
    "Evidence of the TEE names no run: that it is of the machine of this one, and of that time, is not shown here.",
    "TEE の証拠には実行を特定する情報がありません。本実行のマシンおよび時点のものであることは、本レポートでは確認して"
    "いません。",
)
ATTACKS: Final = Text("No attack was measured under this scheme.", "この方式に対する攻撃は測定していません。")
SHIPPED: Final = Text(
    "Attacks were not measured on this model and this data, but on the reference runs of the release.",
    "攻撃の測定は、本モデルと本データではなく、リリース時の参照実行を対象としています。",
)
PARTLY: Final = Text(
    "Some attacks were not run for this report, but on the reference runs of the release.",
    "一部の攻撃は本レポート用には測定しておらず、リリース時の参照実行での結果を示しています。",
)
UNDECIDED: Final = Text(
    "Undecided for want of trials: {names}.", "試行数の不足により判定を保留した攻撃：{names}。"
)
SKIPPED: Final = Text("Not measured: {names}.", "測定していない攻撃：{names}。")
HEURISTIC: Final = Text(
    "That no better attack exists cannot be measured: scheme mixing has no proof.",
    "より強力な攻撃が存在しないことは測定では示せません。mixing 方式には証明がありません。",
)
COLLUSION: Final = Text(
    "That the owners of workers do not collude is an assumption, held by contracts and not by mathematics.",
    "ワーカーの所有者どうしが結託しないことは前提であり、数学ではなく契約によって担保されます。",
)
TIMELINE: Final = Text("No step was traced.", "ステップの時系列は記録していません。")
SPEED: Final = Text(
    "How near the run was to what this hardware allows was not measured.",
    "ハードウェアの理論上限に対する到達度は測定していません。",
)
COST: Final = Text("Cost was not computed.", "費用は算出していません。")
