"""Small shops as folders of CSV files, written by hand so that every expected number can be counted on fingers."""

import atexit
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from ml_pipeline.engine import open_engine
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress

LONG_ID = "x" * 129

DIRTY = {
    "customer_details": f"""customer_id,first_name,email,customer_phone,loyalty_status,customer_since
c1,Asha,asha@example.org,555-0101,Gold,2024-01-01
c2,Bela,bela@example.org,555-0102,Silver,
c1,Asha,asha@example.org,555-0101,Bronze,2023-01-01
,Nobody,nobody@example.org,555-0104,Gold,2024-01-01
{LONG_ID},Long,long@example.org,555-0105,Gold,2024-01-01
c4,Dev,dev@example.org,555-0106,Gold,someday
c5,Esha,esha@example.org,555-0107,Gold,2025-01-03
""",
    "products": """product_id,product_name,product_category,unit_price
p1,Radio, Electronics,100
p2,Rice,GROCERY,2.50
p3,Thing,,1
p1,Radio again,Sports,1
,Nameless,Sports,1
p4,Ball,sports,free
""",
    "stores": "store_id,store_name\ns1,Main\ns1,Main again\n,None\n",
    "promotion_details": "promotion_id,promotion_name\nm1,Spring\n",
    "loyalty_rules": "rule_id,rule_name\nr1,Base\n",
    "store_sales_header": f"""transaction_id,customer_id,store_id,transaction_date,total_amount,customer_phone
t1,c1,s1,2025-01-02 10:00:00,200.00,555-0101
t2,c2,,15-01-2025,7.50,555-0102
t3,,s1,2025-01-03,10,555-0103
,c1,s1,2025-01-03,11,555-0101
t5,c1,s1,,12,
t6,c1,s1,soon,13,
t7,c1,s1,01/25/2025,14,
t8,c1,s1,1970-01-01,15,
t9,c2,s9,16-01-2025 08:30,9.99,
t1,c1,s1,2025-01-02,999,
t11,c1,s1,2099-05-05,50,
t12,c9,s1,2025/01/04,33.00,
t13,c1,s1,2025-01-05,-5.00,
t14,c1,s1,2025-01-05,,
t15,c5,s1,2025-01-02,abc,
{LONG_ID},c1,s1,2025-01-02,16,
t17,c1,s1,2025-01-06T23:59:59,-80,
""",
    "store_sales_line_items": f"""line_item_id,transaction_id,product_id,promotion_id,quantity,line_item_amount
l1,t1,p1,m1,2,200.00
l2,t2,p2,,3,7.50
l3,t3,p1,,1,10
l4,t99,p1,,1,11
l5,,p1,,1,12
l1,t1,p1,,1,13
l7,t9,p9,,1,10.00
l8,t9,p3,m9,1,5.00
l9,t17,p2,,,4.00
l10,t17,p2,,4,
l11,t17,p4,,4,
l12,t17,p2,,1,abc
l13,t17,p2,,many,5
l14,t17,p2,,1,1e30
l15,t17,p2,,9999999999,6
l16,t17,p1,,-1,-100
l17,t17,p2,,0,5
l18,t17,p2,,1,0
,t17,p2,,1,1.00
l20,t15,p2,,1,2.5
l21,t17,{LONG_ID},,1,7
l22,t11,p1,,1,50
""",
}


def write_shop(folder: Path, tables: Mapping[str, str], config: str = "") -> Path:
    """The folder with one CSV file per table, and dataset.toml where there is a config."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    if config:
        (folder / "dataset.toml").write_text(config, encoding="utf-8")
    return folder


def prepare_shop(folder: Path, out: Path, **options: object) -> Prepared:
    """Prepared on a fresh engine of two threads, quietly."""
    threads = options.pop("threads", 2)
    engine = open_engine(threads=threads)  # type: ignore[arg-type]
    return prepare_dataset(engine, folder, out, progress=Progress(bars=False), **options)  # type: ignore[arg-type]


@functools.cache
def dirty_shop() -> Prepared:
    """The dirty shop, prepared once for all tests that only look at it; its folder goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="dirty-shop-")
    atexit.register(folder.cleanup)
    return prepare_shop(write_shop(Path(folder.name) / "data", DIRTY), Path(folder.name) / "out")


def purchase_rows(out: Path) -> list[dict[str, object]]:
    """The written purchases, sorted by all their values."""
    rows = pq.read_table(out / "purchases.parquet").to_pylist()
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])
