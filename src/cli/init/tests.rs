use super::*;
use crate::topic::{Topic, Topics};

/// What Django's migrations make, some tables of its companions, and names that need care.
const SITE: &str = "
        CREATE TABLE care_patient (id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
            name varchar(30) NOT NULL, pin_code text, footprint text);
        CREATE TABLE care_account (id char(32) NOT NULL PRIMARY KEY, email text,
            password varchar(128), ApiToken text, pin text);
        CREATE TABLE author (id INTEGER PRIMARY KEY, name text);
        CREATE TABLE stay (bed text, day text, note text, PRIMARY KEY (day, bed)) WITHOUT ROWID;
        CREATE TABLE auth_user (id integer PRIMARY KEY, password varchar(128));
        CREATE TABLE django_migrations (id integer PRIMARY KEY, app text);
        CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text);
        CREATE TABLE authtoken_token (key varchar(40) PRIMARY KEY);
        CREATE TABLE account_emailaddress (id integer PRIMARY KEY);
        CREATE TABLE plain_log (line text, code text NOT NULL UNIQUE);
        CREATE TABLE invite (token text PRIMARY KEY);
        CREATE TABLE odd (\"*\" text, id integer PRIMARY KEY, secret text);
        CREATE TABLE 来访 (id integer PRIMARY KEY);
        CREATE TABLE 登记 (id integer PRIMARY KEY);
        CREATE TABLE \"a \"\"b\"\"\ntype\" (\"x'\\\" integer PRIMARY KEY, secret text);
        CREATE VIEW everything AS SELECT * FROM care_patient";

struct Site {
    folder: tempfile::TempDir,
    common: Common,
}

impl Site {
    fn with(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.db");
        sqlite::open(&path, Mode::Create)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        let common = Common {
            config: Some(folder.path().join("rowcast.toml")),
            database: Some(format!("sqlite:{}", path.display())),
            bus: None,
        };
        Self { folder, common }
    }

    fn init(&self, force: bool) -> Exit {
        run(&self.common, &Init { force }).unwrap()
    }

    fn tables(&self) -> Vec<Table> {
        describe(&self.folder.path().join("site.db")).unwrap()
    }

    fn file(&self) -> &Path {
        self.common.config.as_deref().unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Loads the file as `serve` does, and holds every topic against its table.
    fn topics(&self) -> Topics {
        let config = config::load(Some(self.file()), &Overrides::default()).unwrap();
        assert!(!config.topics_are_demo);
        assert_eq!(
            config.database.url.path().unwrap(),
            self.folder.path().join("site.db")
        );
        let tables = self.tables();
        let resolve = |spec: &crate::topic::TopicSpec| {
            let table = tables
                .iter()
                .find(|table| Some(&table.name) == spec.table.as_ref());
            Topic::resolve(spec, Some(table.unwrap())).unwrap()
        };
        Topics::new(config.topics.iter().map(resolve).collect()).unwrap()
    }
}

#[test]
fn what_it_writes_loads_and_resolves() {
    let site = Site::with(SITE);
    assert_eq!(site.init(false), Exit::Fine);
    let topics = site.topics();
    let names: Vec<_> = topics.iter().map(|topic| &*topic.name).collect();
    let expected = [
        "a__b__type",
        "author",
        "care_account",
        "care_patient",
        "stay",
        "table",
        "table_2",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        topics.get("stay").unwrap().view.as_ref().unwrap().key,
        ["day", "bed"]
    );
}

#[test]
fn private_columns_are_left_out_and_said_to_be() {
    let site = Site::with(SITE);
    site.init(false);
    let topics = site.topics();
    let shown = |name| topics.get(name).unwrap().view.clone().unwrap().columns;
    assert_eq!(shown("care_account"), ["id", "email"]);
    assert_eq!(shown("a__b__type"), ["x'\\"]);
    assert_eq!(shown("author"), [""; 0]);
    assert_eq!(shown("care_patient"), ["id", "name", "footprint"]);
    let text = site.text();
    assert!(
        text.contains("## without what looks private: [\"password\", \"ApiToken\", \"pin\"]"),
        "{text}"
    );
}

#[test]
fn what_is_left_out_is_there_with_its_reason() {
    let site = Site::with(SITE);
    site.init(false);
    let text = site.text();
    for (table, reason) in [
        ("auth_user", "\"auth\" in a name looks private"),
        ("django_migrations", "\"django_\" in a name looks private"),
        ("django_session", "\"django_\" in a name looks private"),
        ("authtoken_token", "\"auth\" in a name looks private"),
        (
            "account_emailaddress",
            "\"account_\" in a name looks private",
        ),
        (
            "plain_log",
            "it has no primary key; `key` can name NOT NULL columns under a UNIQUE constraint",
        ),
        ("invite", "its key column \"token\" looks private"),
        ("odd", "its column \"*\" cannot be named in `columns`"),
    ] {
        let line = format!("## \"{table}\" is left out: {reason}\n");
        assert!(text.contains(&line), "{line}{text}");
        assert!(text.contains(&format!("#table = \"{table}\"\n")), "{table}");
    }
    assert!(text.contains("#key = [\"code\"]"), "{text}");
    assert!(!text.contains("everything"));
}

#[test]
fn what_is_left_out_can_be_switched_on() {
    let site = Site::with(
        "CREATE TABLE auth_user (id INTEGER PRIMARY KEY, password text); CREATE TABLE a (b NOT NULL UNIQUE);
         CREATE TABLE invite (token text PRIMARY KEY, pin text)",
    );
    site.init(false);
    assert_eq!(site.topics().iter().count(), 0);
    let text = site.text();
    let on = text.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with('#') => setting,
        _ => line,
    });
    let on: Vec<_> = on.filter(|line| *line != "topics = []").collect();
    fs::write(site.file(), on.join("\n")).unwrap();
    let topics = site.topics();
    let view = |name| topics.get(name).unwrap().view.clone().unwrap();
    assert_eq!(view("auth_user").columns, ["id"]);
    assert_eq!(view("a").key, ["b"]);
    assert_eq!(
        view("invite").columns,
        ["token"],
        "an empty list would show the pin"
    );
}

#[test]
fn an_existing_file_is_kept_unless_forced() {
    let site = Site::with("CREATE TABLE a (id INTEGER PRIMARY KEY)");
    fs::write(site.file(), "mine").unwrap();
    assert_eq!(site.init(false), Exit::Usage);
    assert_eq!(site.text(), "mine");
    assert_eq!(site.init(true), Exit::Fine);
    assert_eq!(site.topics().iter().count(), 1);
}

#[test]
fn a_database_is_never_created() {
    let mut site = Site::with("");
    let missing = site.folder.path().join("missing.db");
    site.common.database = Some(format!("sqlite:{}", missing.display()));
    assert_eq!(site.init(false), Exit::Usage);
    assert!(!missing.exists() && !site.file().exists());
    fs::write(
        &missing,
        "this is no database, but it is long enough to be looked at",
    )
    .unwrap();
    assert!(run(&site.common, &Init::default()).is_err());
    assert!(!site.file().exists());
}
