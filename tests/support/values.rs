//! One column of each kind of PostgreSQL's types, with values and the JSON that they are
//! (docs/protocol.md §6): for whoever compares what a query tells with what the stream tells.

/// What a database needs before the types of [`VALUES`] exist.
pub const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'so \"so\"', 'glad');
    CREATE DOMAIN email AS varchar(99) CHECK (value LIKE '%@%');
    CREATE DOMAIN tags AS text[];
    CREATE DOMAIN mood_now AS mood;
    CREATE TYPE place AS (street text, number int);";

/// A type, a value of it in SQL, and its JSON.
pub const VALUES: &[(&str, &str, &str)] = &[
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("boolean", "NULL", "null"),
    ("smallint", "-32768", "-32768"),
    ("integer", "2147483647", "2147483647"),
    ("bigint", "9007199254740991", "9007199254740991"),
    ("bigint", "9007199254740992", "\"9007199254740992\""),
    ("bigint", "-9223372036854775808", "\"-9223372036854775808\""),
    ("oid", "4294967295", "4294967295"),
    ("real", "0.1", "0.1"),
    ("real", "'1e-45'", "1e-45"),
    ("real", "3.4028235e38", "3.4028235e+38"),
    ("real", "'NaN'", "\"NaN\""),
    ("double precision", "0.1", "0.1"),
    ("double precision", "1e300", "1e+300"),
    ("double precision", "'-0'", "-0.0"),
    ("double precision", "5", "5.0"),
    ("double precision", "'Infinity'", "\"Infinity\""),
    ("double precision", "'-Infinity'", "\"-Infinity\""),
    ("numeric", "1.50", "\"1.50\""),
    ("numeric(10,3)", "2", "\"2.000\""),
    ("numeric", "'NaN'", "\"NaN\""),
    (
        "numeric",
        "123456789012345678901234567890.123456789",
        "\"123456789012345678901234567890.123456789\"",
    ),
    (
        "text",
        "'王秀英 \"x\" \\ ' || chr(10) || chr(9) || chr(1)",
        "\"王秀英 \\\"x\\\" \\\\ \\n\\t\\u0001\"",
    ),
    ("text", "''", "\"\""),
    ("varchar(9)", "'a  '", "\"a  \""),
    ("char(5)", "'ab'", "\"ab   \""),
    ("name", "'patient'", "\"patient\""),
    ("\"char\"", "'x'", "\"x\""),
    (
        "timestamptz",
        "'2026-11-23 02:36:00+00'",
        "\"2026-11-23T02:36:00Z\"",
    ),
    (
        "timestamptz",
        "'2026-11-23 10:36:00.5+08'",
        "\"2026-11-23T02:36:00.5Z\"",
    ),
    (
        "timestamptz",
        "'2026-11-23 02:36:00.123456+00'",
        "\"2026-11-23T02:36:00.123456Z\"",
    ),
    ("timestamptz", "'infinity'", "\"infinity\""),
    (
        "timestamptz",
        "'0044-03-15 12:00:00+00 BC'",
        "\"0044-03-15 12:00:00+00 BC\"",
    ),
    (
        "timestamptz",
        "'10000-01-01 00:00:00+00'",
        "\"10000-01-01 00:00:00+00\"",
    ),
    (
        "timestamp",
        "'2026-11-23 02:36:00.5'",
        "\"2026-11-23T02:36:00.5\"",
    ),
    (
        "timestamp(0)",
        "'2026-11-23 02:36:00.5'",
        "\"2026-11-23T02:36:01\"",
    ),
    ("timestamp", "'-infinity'", "\"-infinity\""),
    ("date", "'2026-11-23'", "\"2026-11-23\""),
    ("date", "'infinity'", "\"infinity\""),
    ("time", "'02:36:00.25'", "\"02:36:00.25\""),
    ("timetz", "'02:36:00+05:30'", "\"02:36:00+05:30\""),
    ("interval", "'1 day 02:00:00'", "\"P1DT2H\""),
    ("interval", "'-1 year -2 months 3 days'", "\"P-1Y-2M3D\""),
    (
        "uuid",
        "'0123456789ABCDEF0123456789ABCDEF'",
        "\"01234567-89ab-cdef-0123-456789abcdef\"",
    ),
    (
        "json",
        "('{\"b\": 1.0,' || chr(10) || ' \"a\": [1e400, \"\\n\"], \"b\": null}')::json",
        "{\"b\": 1.0, \"a\": [1e400, \"\\n\"], \"b\": null}",
    ),
    ("json", "'null'", "null"),
    (
        "jsonb",
        "'{\"b\":1.0,\"a\":\"x\",\"b\":2.50}'",
        "{\"a\": \"x\", \"b\": 2.50}",
    ),
    (
        "jsonb",
        "'12345678901234567890.5'",
        "12345678901234567890.5",
    ),
    ("bytea", "'\\x00ff'", "\"\\\\x00ff\""),
    ("bytea", "''", "\"\\\\x\""),
    ("integer[]", "'{}'", "[]"),
    ("integer[]", "'{1,NULL,3}'", "[1,null,3]"),
    ("bigint[]", "'{9007199254740993}'", "[\"9007199254740993\"]"),
    ("integer[][]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    ("integer[]", "'[0:1]={7,8}'", "[7,8]"),
    ("boolean[]", "'{t,f,NULL}'", "[true,false,null]"),
    (
        "text[]",
        "ARRAY['a', 'b c', 'NULL', NULL, '', '{x}', 'say \"x\"', 'a\\b', 'q,r']",
        "[\"a\",\"b c\",\"NULL\",null,\"\",\"{x}\",\"say \\\"x\\\"\",\"a\\\\b\",\"q,r\"]",
    ),
    (
        "timestamptz[]",
        "'{2026-11-23 02:36:00+00}'",
        "[\"2026-11-23T02:36:00Z\"]",
    ),
    (
        "jsonb[]",
        "ARRAY['{\"a\": [1, \"x\"]}', 'null', NULL]::jsonb[]",
        "[{\"a\": [1, \"x\"]},null,null]",
    ),
    ("numeric[]", "'{1.50,NaN}'", "[\"1.50\",\"NaN\"]"),
    ("real[]", "'{0.1,Infinity}'", "[0.1,\"Infinity\"]"),
    ("bytea[]", "ARRAY['\\x00ff']::bytea[]", "[\"\\\\x00ff\"]"),
    ("char(3)[]", "'{a,bcd}'", "[\"a  \",\"bcd\"]"),
    (
        "box[]",
        "'{(1,1),(0,0);(2,2),(1,1)}'",
        "[\"(1,1),(0,0)\",\"(2,2),(1,1)\"]",
    ),
    ("int2vector", "'1 2'", "\"1 2\""),
    ("mood", "'so \"so\"'", "\"so \\\"so\\\"\""),
    ("mood[]", "'{sad,glad}'", "[\"sad\",\"glad\"]"),
    ("mood_now", "'glad'", "\"glad\""),
    ("email", "'a@b'", "\"a@b\""),
    ("email[]", "'{a@b,NULL}'", "[\"a@b\",null]"),
    ("tags", "'{x,y z}'", "[\"x\",\"y z\"]"),
    ("place", "ROW('High St', 5)", "\"(\\\"High St\\\",5)\""),
    ("place", "ROW(NULL, NULL)", "\"(,)\""),
    ("place[]", "ARRAY[ROW('a', 1)::place]", "[\"(a,1)\"]"),
    ("int4range", "'[1,5)'", "\"[1,5)\""),
    ("int4multirange", "'{[1,5),[7,9)}'", "\"{[1,5),[7,9)}\""),
    (
        "tstzrange",
        "'[2026-11-23 02:36:00+00,)'",
        "\"[\\\"2026-11-23 02:36:00+00\\\",)\"",
    ),
    ("inet", "'192.168.1.1'", "\"192.168.1.1\""),
    ("cidr", "'10.0.0.0/8'", "\"10.0.0.0/8\""),
    ("macaddr", "'08:00:2b:01:02:03'", "\"08:00:2b:01:02:03\""),
    ("money", "'12.34'", "\"$12.34\""),
    ("bit(3)", "B'101'", "\"101\""),
    ("varbit", "B'1'", "\"1\""),
    ("point", "'(1,2.5)'", "\"(1,2.5)\""),
    ("tsvector", "'a b'", "\"'a' 'b'\""),
    ("xml", "'<a>1</a>'", "\"<a>1</a>\""),
    ("pg_lsn", "'0/16B3748'", "\"0/16B3748\""),
];

/// `CREATE TABLE` with a column `vN` of each entry's type, and the key `id`; and the INSERT of one
/// row that holds them all.
pub fn table(name: &str) -> (String, String) {
    let columns = VALUES.iter().enumerate();
    let columns: Vec<String> = columns
        .map(|(n, (kind, ..))| format!("v{n} {kind}"))
        .collect();
    let values: Vec<&str> = VALUES.iter().map(|(_, value, _)| *value).collect();
    (
        format!(
            "{TYPES}\nCREATE TABLE {name} (id int PRIMARY KEY, {})",
            columns.join(", ")
        ),
        format!("INSERT INTO {name} VALUES (1, {})", values.join(", ")),
    )
}
