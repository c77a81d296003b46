"""Words of both pages: frame, switches, headings of tables, what was not measured."""

from __future__ import annotations

from typing import Final

from tempo.report.page.text import Text

REPORT: Final = Text("Run report", "実行レポート")
PLAN: Final = Text("Plan", "実行計画書")
SKIP: Final = Text("Skip to the content", "本文へ移動")
CONTENTS: Final = Text("Contents", "目次")
LANGUAGE: Final = Text("Language", "言語")
DISPLAY: Final = Text("Display", "表示")
THEME_AUTO: Final = Text("Auto", "自動")
THEME_LIGHT: Final = Text("Light", "ライト")
THEME_DARK: Final = Text("Dark", "ダーク")
MADE: Final = Text("Made {at} with Tempo {version}", "作成日時：{at}（Tempo {version}）")
KEY_FIGURES: Final = Text("Key figures", "主要な数値")
OFFLINE: Final = Text(
    "This page is one file. It loads nothing from a network and sends nothing.",
    "本ページは単一のファイルで完結しており、外部との通信は一切行いません。",
)

NOT_MEASURED: Final = Text("Not measured in this run.", "本実行では測定していません。")
WOULD_MEASURE: Final = Text("This would measure it:", "次のコマンドで測定できます。")
DETAILS: Final = Text("{n} rows", "全 {n} 行")
ITEMS_SAYS: Final = Text("{n} in all", "{n} 件")
SEEN_SAYS: Final = Text("{n} kinds of information; at worst: {kind}", "{n} 種類、最も重い区分：{kind}")
MACHINE_SAYS: Final = Text("processor, system, versions", "プロセッサー、OS、各種の版")
SOURCES_SAYS: Final = Text("{n} files, each with its SHA-256", "{n} 件（SHA-256 付き）")
PLACED_SAYS: Final = Text(
    "{sent} of {n} rows at workers, with {share} of the arithmetic",
    "{n} 行中 {sent} 行をワーカーで実行（演算量の {share}）",
)
NONE: Final = Text("none", "なし")
NAME: Final = Text("Name", "項目")
FIGURE: Final = Text("Figure", "値")
SHARE: Final = Text("Share", "割合")
SECONDS: Final = Text("Time", "時間")
MEANING: Final = Text("What it means", "内容")
REMEDY: Final = Text("What takes it away", "防ぐ方法")
LAYERS: Final = Text("Layers", "層")
LAYER: Final = Text("Layer", "層")
OPERATION: Final = Text("Operation", "演算")
SHAPE: Final = Text("Shape", "形状")
WHERE: Final = Text("Where it ran", "実行場所")
REASON: Final = Text("Why", "理由")
FLOPS_SHARE: Final = Text("Share of arithmetic", "演算量の割合")
SEEN: Final = Text("Provider sees", "事業者から見えるもの")
AT_WORKERS: Final = Text("Workers (untrusted)", "ワーカー（信頼対象外）")
IN_TEE: Final = Text("TEE (trusted)", "TEE（信頼対象）")
AND_MORE: Final = Text("{first} and {n} more", "{first} ほか {n} 件")
WHOLE_MODEL: Final = Text("(model)", "（モデル全体）")

UNVERIFIED: Final = Text("What was not verified", "検証していない事項")
UNVERIFIED_LEAD: Final = Text(
    "Read this before relying on this page.",
    "本ページの内容を判断に用いる前に、必ずご確認ください。",
)
ORIGIN: Final = Text("Where these figures come from", "数値の出所")
MACHINE: Final = Text("Machine", "測定環境")
COMMIT: Final = Text("Version of the code", "コードの版")
OUTSIDE: Final = Text("not known (not a checkout)", "不明（リポジトリ外で実行）")
CORES: Final = Text("{n} cores", "{n} コア")
SOURCES: Final = Text("Files this page was made from", "本ページの作成に用いたファイル")
FILE: Final = Text("File", "ファイル")
FINGERPRINT: Final = Text("SHA-256", "SHA-256")

STANDING: Final = (
    Text(
        "Physical attacks on the trusted machine and side channels of its processor are out of scope: Tempo relies "
        "on the TEE for them.",
        "信頼するマシンへの物理攻撃およびプロセッサーのサイドチャネルは対象外です。これらの防御は信頼実行環境（TEE）に依存します。",
    ),
    Text(
        "The provider always sees the shapes of tensors, hence the architecture, the timing, the size of a "
        "batch and the number of steps.",
        "テンソルの形状（すなわちモデルの構造）、処理の時刻、バッチサイズ、ステップ数は、常に事業者から見えます。",
    ),
    Text(
        "No part of Tempo has run inside the hardware of a TEE so far; its evidence was tested on published samples "
        "and on a software TPM.",
        "Tempo は、現時点では TEE の実機での動作を確認していません。構成証明の検証は、公開された証拠データと"
        "ソフトウェア TPM によるものです。",
    ),
)
