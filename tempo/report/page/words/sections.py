"""Words of the report's sections."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

PROTECTED: Final = Text("What was protected, and how", "保護の対象と方式")
SCHEME: Final = Text("Scheme", "秘匿方式")
PLACEMENT: Final = Text("Which layer ran where", "各層の実行場所")

SAW: Final = Text("What the provider saw, and could learn", "事業者が見たもの、知り得たもの")
SAW_LEAD: Final = Text(
    "In this run workers received {sent} and returned {received}. By construction they see the following of the layers "
    "that were sent.",
    "本実行でワーカーは {sent} を受信し、{received} を返しました。送信した層について、方式の性質上、次の事項が"
    "事業者から見えます。",
)
SAW_NOTHING: Final = Text(
    "No layer was sent to workers in this run, so there was nothing for them to see.",
    "本実行ではワーカーに送った層がないため、事業者から見えるものはありません。",
)
CODE: Final = Text("Code", "コード")
CLASS: Final = Text("Class", "区分")
PER_WORKER: Final = Text("Jobs by worker", "ワーカー別の処理件数")
WORKER: Final = Text("Worker", "ワーカー")
JOBS_SAYS: Final = Text("{jobs} by {workers} workers", "{workers} 台で計 {jobs} 件")
JOBS: Final = Text("Jobs answered", "応答件数")

ATTACKS: Final = Text("Attacks", "攻撃の測定結果")
ATTACKS_SHIPPED: Final = Text(
    "Measured on {date} for this release on reference runs, under the scheme of this run. Your own model and data may "
    "give other results.",
    "本リリースの検証として、参照実行を対象に、本実行と同じ秘匿方式で {date} に測定した結果です。お使いのモデルと"
    "データでは結果が異なる場合があります。",
)
ATTACKS_GIVEN: Final = Text(
    "Measured by {command}, under the scheme of this run.",
    "{command} により、本実行と同じ秘匿方式で測定した結果です。",
)
OWN_ATTACKS: Final = Text("On your own model:", "お使いのモデルで測定する場合：")
ATTACKS_REST: Final = Text(
    "Attacks that were not run for this report stand as this release measured them on its reference runs.",
    "本レポート用に測定していない攻撃については、本リリースが参照実行で測定した結果を示します。",
)
MEASURED_BY: Final = Text("Measured", "測定対象")
BY_RELEASE: Final = Text("on reference runs", "参照実行")
BY_REPORT: Final = Text("for this report", "本レポート用")
ATTACK: Final = Text("Attack", "攻撃")
NEEDS: Final = Text("What the attacker must know", "攻撃者が必要とする知識")
VERDICT: Final = Text("Verdict", "判定")
SCORE: Final = Text("Score", "スコア")
CHANCE: Final = Text("Chance", "偶然の水準")
UNDEFENDED: Final = Text("Undefended", "無防備な場合")
SCALE_NOTE: Final = Text(
    "The bar is the score from 0 to 1; the thin mark is what guessing reaches, the thick mark what the same attack "
    "reaches where nothing is hidden. Near the thin mark is good.",
    "棒は 0 から 1 までのスコア、細い印は無作為な推測で得られる水準、太い印は秘匿しない場合に同じ攻撃が達する水準です。"
    "棒が細い印に近いほど安全です。",
)
ATTACKS_EACH: Final = Text("Attack by attack", "攻撃別の結果")
PICTURES: Final = Text("Recovered against true", "復元結果と元の入力の比較")
PICTURES_LEAD: Final = Text(
    "On the left of each pair what an attacker recovered, on the right the true input.",
    "各組の左が攻撃者の復元した画像、右が元の入力です。",
)
PICTURES_OTHER: Final = Text("Under other schemes, to compare", "他の秘匿方式での結果（比較用）")
PICTURES_OWN: Final = Text(
    "This page shows inputs of your own model: treat it as confidentially as the data.",
    "本ページにはお使いのモデルへの入力が含まれます。元のデータと同等の機密区分で取り扱ってください。",
)
PICTURES_LEFT: Final = Text(
    "{n} pictures of inputs of your own model were left out; --own-pictures shows them.",
    "お使いのモデルの入力を示す画像 {n} 点は省略しました。--own-pictures を指定すると表示します。",
)
RECOVERED: Final = Text("recovered", "復元結果")
TRUE: Final = Text("true input", "元の入力")
PICTURE_ALT: Final = Text(
    "{what}: {attack} under {scheme}, {title}", "{what}：{scheme} に対する {attack}、{title}"
)

EVENTS: Final = Text("Integrity and availability", "完全性と可用性")
CHECKS: Final = Text("replies checked", "検証した結果")
FAILED: Final = Text("checks failed", "検証で不正と判定")
RETRIES: Final = Text("jobs done again", "再実行した処理")
FALLBACKS: Final = Text(
    "pieces done in the TEE for want of workers", "ワーカー不足により TEE 内で実行した処理"
)
SET_ASIDE: Final = Text("workers caught", "不正を検出したワーカー")
EVENT: Final = Text("Event", "事象")
TIMES: Final = Text("Times", "回数")
WHAT_IT_IS: Final = Text("What it is", "説明")
DETAIL: Final = Text("Detail", "詳細")
NO_EVENTS: Final = Text(
    "No event: no worker was lost, late, refused or wrong.",
    "特記すべき事象はありません（喪失、遅延、拒否、不正のいずれもなし）。",
)
LIST_OF_EVENTS: Final = Text(
    "Events, in their order ({shown} of {n})", "事象の一覧（発生順、{n} 件中 {shown} 件）"
)
PROMISES: Final = Text("What the checks find", "検証の検出能力")
PROMISE: Final = Text(
    "A row that is off by {size} of its size is missed with probability {miss} at most.",
    "行の大きさの {size} を超える誤りを見逃す確率は {miss} 以下です。",
)
ARITHMETIC: Final = Text("Arithmetic", "演算精度")
PROMISES_SAYS: Final = Text(
    "{n} kinds of check; errors above {size} of a row's size are found, missed with {miss} at most",
    "{n} 種類。行の大きさの {size} を超える誤りを検出（見逃し確率 {miss} 以下）",
)
PROBES: Final = Text("Probes", "検証ベクトル数")
EXACT: Final = Text(
    "Under shares every check is exact arithmetic on integers.",
    "shares 方式の検証は整数の厳密な演算で行います。",
)
TOLD_AND_CAUGHT: Final = Text(
    "Lies told on purpose: {told}; checks that failed: {caught}.",
    "意図的に発生させた不正：{told} 件、検出した不正：{caught} 件。",
)

ACCURACY: Final = Text("Accuracy against plain training", "通常の学習との精度比較")
ACCURACY_LEAD: Final = Text(
    "The same model ({parameters} parameters) on {data}, {steps} steps from the same seed, once plainly and once under "
    "Tempo. Losses may differ by rounding alone, within the bound drawn below.",
    "同一のモデル（パラメーター数 {parameters}）を {data} で、同じシードから {steps} ステップ、通常の方法と Tempo の"
    "双方で学習しました。損失の差は丸め誤差によるものだけが許容され、その上限を図に示します。",
)
PLAIN: Final = Text("Plain PyTorch", "通常の PyTorch")
TEMPO: Final = Text("Tempo", "Tempo")
CURVES: Final = Text("Loss curves", "損失の推移")
CURVES_SAYS: Final = Text(
    "{steps} steps, both trainings and their difference", "{steps} ステップ、両者の損失とその差"
)
LOSS: Final = Text("Training loss", "学習損失")
DIFFERENCE: Final = Text("Difference of the losses (logarithmic)", "損失の差（対数目盛）")
MEASURED: Final = Text("measured", "実測値")
ALLOWED: Final = Text("allowed", "許容上限")
STEP: Final = Text("Step", "ステップ")
OWN_CORES: Final = Text(
    "Workers that share the trusted machine's own processor, as in the demo, add no speed: what rented GPUs would give, "
    "tempo plan predicts.",
    "デモのようにワーカーが信頼するマシンと同じプロセッサーを共有する場合、高速化は得られません。GPU を利用した場合の"
    "効果は tempo plan で予測できます。",
)
ACCURACY_ROW: Final = Text("Accuracy on test data", "テストデータでの正解率")
LAST_LOSS: Final = Text("Last loss", "最終損失")
STEP_SECONDS: Final = Text("Time of a step", "1 ステップの時間")
WORST: Final = Text("Greatest difference of the losses", "損失の最大差")
LIE_MARK: Final = Text("a worker lied and was caught", "ワーカーの不正を検出")
KILL_MARK: Final = Text("a worker was killed", "ワーカーを強制停止")
BROKEN: Final = Text("Promises that were not kept", "満たされなかった条件")
CURVE_ALT: Final = Text(
    "{what} over {steps} steps. The figures are in the table beside it.",
    "{steps} ステップにわたる{what}の推移。数値は併記の表に示します。",
)

TIME: Final = Text("Where the time went", "処理時間の内訳")
TIME_LEAD: Final = Text(
    "Seconds of the trusted machine by part of its work, {total} in all.",
    "信頼するマシンの処理時間の内訳（合計 {total}）。",
)
PART: Final = Text("Part", "処理")
STEP_TIMELINE: Final = Text("Timeline of one step", "1 ステップの時系列")
TIMELINE_LEAD: Final = Text(
    "What the trusted machine, each link and each worker did, side by side, over {total}.",
    "信頼するマシン、各通信路、各ワーカーの動作を {total} にわたり並べて示します。",
)
LANE: Final = Text("Who", "主体")
BUSY: Final = Text("Busy with", "処理内容")
TIMELINE_SAYS: Final = Text("{n} lanes over {total}", "主体 {n} 件、{total}")
LANES_LEFT: Final = Text("{n} more lanes are not drawn.", "ほか {n} 件は省略しています。")

SPEED: Final = Text("Share of what is possible", "理論上限に対する到達度")
SPEED_LEAD: Final = Text(
    "The law bounds the speed-up over the TEE alone by how fast it copies memory, S ≤ 3hb/(mF); the roofline adds link "
    "and workers. Measured by {command}.",
    "TEE 単独に対する高速化の上限は、メモリー複製の速度で決まります（S ≤ 3hb/(mF)）。ルーフラインはこれに通信路と"
    "ワーカーの性能を加えた上限です。測定には {command} を使用しました。",
)
SPEEDUP: Final = Text("Speed-up over TEE alone", "TEE 単独に対する速度")
ROOFLINE: Final = Text("Share of roofline", "ルーフライン比")
LAW: Final = Text("Share of the law", "理論上限比")

COST: Final = Text("Cost against the alternatives", "他の方法との費用比較")
COST_LEAD: Final = Text(
    "One epoch of {model}, at the prices that were given.",
    "{model} の 1 エポックあたり。単価は入力された値を使用しています。",
)
COST_UNPRICED: Final = Text(
    "The plan that was given has no prices: say --samples and the prices.",
    "指定された計画に単価が含まれていません。--samples と単価を指定してください。",
)
OPTIONS: Final = {
    "tee-only": Text("TEE alone", "TEE 単独"),
    "tempo": Text("Tempo", "Tempo"),
    "unprotected-gpu": Text("GPU without protection", "保護なしの GPU"),
    "confidential-gpu": Text("GPU with confidential computing", "機密コンピューティング対応 GPU"),
}
OPTION: Final = Text("Way to run it", "実行方法")
PRICE: Final = Text("Cost", "費用")
ASSUMING: Final = Text("Assuming", "前提条件")
ASSUMING_SAYS: Final = Text("of each of {n} ways to run it", "実行方法 {n} 通り")
SPEED_ROWS: Final = Text("Time, speed-up and roofline of each", "各演算の時間・速度比・ルーフライン比")
SPEED_SAYS: Final = Text("{n} rows; {least} to {most} of the law", "全 {n} 行、理論上限比 {least}〜{most}")
NO_PRICE: Final = Text("no price given", "単価の指定なし")

TRUST: Final = Text("Attestation and audit log", "構成証明（アテステーション）と監査ログ")
ATTESTATION: Final = Text("Attestation", "構成証明")
ATTESTED: Final = Text(
    "Evidence of kind {kind} was verified and admitted by the policy {policy}.",
    "{kind} の証拠を検証し、ポリシー {policy} により承認しました。",
)
REFUSED: Final = Text(
    "Evidence was refused by the policy {policy}.", "証拠はポリシー {policy} により拒否されました。"
)
SIMULATED: Final = Text(
    "It is simulated: it proves nothing about hardware.",
    "これはシミュレーションであり、ハードウェアについては何も証明しません。",
)
AUDIT: Final = Text("Audit log", "監査ログ")
AUDIT_LEAD: Final = Text(
    "{entries} entries of {origin}, from {first} to {last}: signature, order and every entry were verified while this page "
    "was made.",
    "{origin} の記録 {entries} 件（{first} から {last} まで）について、署名、順序、全記録の整合性を本ページの作成時に検証しました。",
)
AUDIT_EXTENDS: Final = Text(
    "It extends the {n} entries seen earlier.", "以前に確認した {n} 件の記録を正しく引き継いでいます。"
)
AUDIT_ALONE: Final = Text(
    "Whether the log was taken back to an older state cannot be told without an earlier checkpoint (--since).",
    "過去の状態に巻き戻されていないことは、以前のチェックポイント（--since）がないと確認できません。",
)
AUDIT_TIED: Final = Text(
    "A session in it closed with the checks and bytes of this run.",
    "本実行と検証件数・通信量が一致するセッションの終了記録があります。",
)
AUDIT_UNTIED: Final = Text(
    "No session in it closed with the checks and bytes of this run: nothing ties the log to it.",
    "本実行と検証件数・通信量が一致するセッションの終了記録がなく、このログが本実行のものであることを確認できません。",
)
AUDIT_UNSIGNED: Final = Text(
    "Beyond what is signed the log holds {n} more, which nobody vouches for: a crash, or something added.",
    "署名された範囲の後に {n} の未署名データがあります。異常終了または追記の可能性があり、内容は保証されません。",
)
AUDIT_ROOT: Final = Text("Root", "ルートハッシュ")
KIND: Final = Text("Kind of entry", "記録の種類")
ENTRIES: Final = Text("Entries", "件数")
GAUGE: Final = Text("From 0 to 1", "0 から 1")
