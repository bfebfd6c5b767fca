//! Migrations, by hand and by Django: nothing foreign fails, the topic is told to reload, and
//! capture goes on.

use std::{fs, path::Path, process::Command};

use serde_json::{Value as Json, json};

use crate::support::{
    Follower, Options, Project, Server,
    follower::{BEAT, brief, serve, topics},
    sqlite3,
};

const PEOPLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, note TEXT);
    CREATE UNIQUE INDEX names ON t (name);
    INSERT INTO t VALUES (1, 'a', 80, ''), (2, 'b', 81, ''), (3, 'c', 82, '');";

/// Runs a migration with the `sqlite3` shell, which waits for no lock, while Rowcast serves; waits
/// for the reload, queries again as a client must, and sees that a later write arrives.
async fn migrate(follower: &mut Follower, server: &Server, script: &str) {
    sqlite3(&server.database(), script);
    follower
        .socket
        .next_where("a reload", |frame| {
            frame["type"] == "t" && frame["op"] == "reload"
        })
        .await;
    follower.ask_all().await;
    let events = follower
        .after(&[
            "INSERT INTO t (id) VALUES (1000)",
            "DELETE FROM t WHERE id = 3",
        ])
        .await;
    let told = brief(&events);
    let found = |what: &str| told.iter().any(|event| event == what);
    assert!(
        found("insert 1000") && found("delete 3"),
        "{script}: {told:?}"
    );
    follower.agrees_with(&server.database());
    follower
        .after(&[
            "DELETE FROM t WHERE id = 1000",
            "INSERT INTO t (id) VALUES (3)",
        ])
        .await;
    follower.agrees_with(&server.database());
}

#[tokio::test]
async fn columns_are_added_renamed_and_dropped_under_capture() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    for script in [
        "ALTER TABLE t ADD COLUMN phone TEXT DEFAULT '110'; UPDATE t SET phone = '119' WHERE id = 1",
        "ALTER TABLE t RENAME COLUMN age TO years",
        "ALTER TABLE t DROP COLUMN note",
        "ALTER TABLE t DROP COLUMN phone; ALTER TABLE t ADD COLUMN bed; ALTER TABLE t RENAME COLUMN bed TO place; UPDATE t SET place = 7",
        "DROP INDEX names; ALTER TABLE t DROP COLUMN name; UPDATE t SET years = 1",
    ] {
        migrate(&mut follower, &server, script).await;
    }
    let row = follower.view.rows.values().next().unwrap();
    assert_eq!(row, &json!({"id": 1, "years": 1, "place": 7}));
}

#[tokio::test]
async fn a_table_is_made_anew_in_every_way() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let made = |name: &str| {
        format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, note TEXT);")
    };
    let one = [
        &made("new_t"),
        "INSERT INTO new_t SELECT * FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t;",
    ]
    .concat();
    let two = [
        "ALTER TABLE t RENAME TO old_t;",
        &made("t"),
        "INSERT INTO t SELECT * FROM old_t; DROP TABLE old_t;",
    ]
    .concat();
    let gone = [
        "DROP TABLE t; ",
        &made("t"),
        "INSERT INTO t (id) VALUES (1), (3);",
    ]
    .concat();
    for script in [one, two, gone] {
        migrate(&mut follower, &server, &script).await;
        migrate(&mut follower, &server, &format!("BEGIN; {script} COMMIT;")).await;
        let pragmas = "PRAGMA foreign_keys = ON; PRAGMA legacy_alter_table = ON; BEGIN;";
        migrate(
            &mut follower,
            &server,
            &format!("{pragmas} {script} COMMIT;"),
        )
        .await;
    }
}

#[tokio::test]
async fn a_table_that_goes_away_for_a_while_is_followed_again_when_it_is_back() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let reload = |frame: &Json| frame["type"] == "t" && frame["op"] == "reload";
    for (id, away, back) in [
        (
            70,
            "DROP TABLE t",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, x)",
        ),
        (71, "ALTER TABLE t RENAME TO s", "ALTER TABLE s RENAME TO t"),
    ] {
        sqlite3(&server.database(), away);
        follower.socket.next_where("a reload", reload).await;
        let answer = follower
            .socket
            .ask(json!({"type": "t", "rid": 1, "id": 1}))
            .await;
        assert_eq!(answer["error"], "db_unavailable", "{answer}");
        // Other tables are followed meanwhile.
        follower.sync().await;
        sqlite3(&server.database(), back);
        follower.socket.next_where("a reload", reload).await;
        follower.ask_all().await;
        assert_eq!(
            brief(
                &follower
                    .after(&[&format!("INSERT INTO t (id) VALUES ({id})")])
                    .await
            ),
            [format!("insert {id}")]
        );
        follower.agrees_with(&server.database());
    }
}

#[tokio::test]
async fn a_renamed_table_is_altered_freely_although_we_watched_it() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    sqlite3(
        &server.database(),
        "ALTER TABLE t RENAME TO archive; INSERT INTO archive (id) VALUES (9)",
    );
    follower
        .socket
        .next_where("a reload", |frame| frame["op"] == "reload")
        .await;
    follower.sync().await;
    sqlite3(
        &server.database(),
        "ALTER TABLE archive RENAME COLUMN id TO number; ALTER TABLE archive DROP COLUMN note;
         INSERT INTO archive (number) VALUES (10)",
    );
    // Its rows are nobody's business any more; a second reload may follow once triggers are off.
    let events = follower.sync().await;
    let reloads = events.iter().all(|event| event["op"] == "reload");
    assert!(reloads, "{events:?}");
    sqlite3(&server.database(), "DROP TABLE archive");
    follower.sync().await;
}

#[tokio::test]
async fn vacuum_and_a_restored_dump_change_nothing() {
    let mut server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    follower.after(&["UPDATE t SET age = 1"]).await;
    sqlite3(&server.database(), "VACUUM; REINDEX; ANALYZE");
    assert_eq!(
        brief(&follower.after(&["UPDATE t SET age = 2 WHERE id = 1"]).await)
            .into_iter()
            .filter(|event| event != "reload ")
            .collect::<Vec<_>>(),
        ["update 1"]
    );
    let cursor = follower
        .socket
        .ask(json!({"type": "t", "rid": 1, "id": 1}))
        .await["cursor"]
        .clone();
    server.signal("TERM");
    server.ended();
    let restored = server.folder().join("restored.db");
    let dump = sqlite3(&server.database(), ".dump");
    let script = server.folder().join("dump.sql");
    fs::write(&script, dump).unwrap();
    sqlite3(&restored, &format!(".read {}", script.display()));
    fs::rename(&restored, server.database()).unwrap();
    for name in ["-wal", "-shm"] {
        let _ = fs::remove_file(server.folder().join(format!("rowcast.db{name}")));
    }
    server.restart();
    let mut socket = server
        .socket(&format!("since={}", cursor.as_str().unwrap()))
        .await;
    assert_eq!(socket.next().await["type"], "sys:caught_up");
    sqlite3(&server.database(), "UPDATE t SET age = 3 WHERE id = 2");
    let event = socket
        .next_where("the row", |frame| frame["type"] == "t")
        .await;
    assert_eq!(event["data"]["age"], 3);
}

const MODELS: [&str; 6] = [
    "
class Ward(models.Model):
    name = models.CharField(max_length=20)
class Resident(models.Model):
    name = models.CharField(max_length=50)
    age = models.IntegerField(default=80)
    note = models.TextField(default='')
",
    // Added: a plain one, one with a default, a unique one, a foreign key.
    "
class Ward(models.Model):
    name = models.CharField(max_length=20)
class Resident(models.Model):
    name = models.CharField(max_length=50)
    age = models.IntegerField(default=80)
    note = models.TextField(default='')
    phone = models.CharField(max_length=20, null=True)
    active = models.BooleanField(default=True)
    bed = models.CharField(max_length=10, unique=True, null=True)
    ward = models.ForeignKey(Ward, null=True, on_delete=models.CASCADE)
",
    // Altered: a longer text, another type, not null, and two unique together.
    "
class Ward(models.Model):
    name = models.CharField(max_length=20)
class Resident(models.Model):
    name = models.CharField(max_length=200)
    age = models.CharField(max_length=5, default='80')
    note = models.TextField(default='', null=True)
    phone = models.CharField(max_length=20, default='')
    active = models.BooleanField(default=True, db_index=True)
    bed = models.CharField(max_length=10, unique=True, null=True)
    ward = models.ForeignKey(Ward, null=True, on_delete=models.SET_NULL)
    class Meta:
        unique_together = [('name', 'ward')]
",
    // Renamed: a field; and no longer unique together.
    "
class Ward(models.Model):
    name = models.CharField(max_length=20)
class Resident(models.Model):
    name = models.CharField(max_length=200)
    years = models.CharField(max_length=5, default='80')
    note = models.TextField(default='', null=True)
    phone = models.CharField(max_length=20, default='')
    active = models.BooleanField(default=True, db_index=True)
    bed = models.CharField(max_length=10, unique=True, null=True)
    ward = models.ForeignKey(Ward, null=True, on_delete=models.SET_NULL)
",
    // Removed: plain ones, the unique one, the indexed one, the foreign key.
    "
class Ward(models.Model):
    name = models.CharField(max_length=20)
class Resident(models.Model):
    name = models.CharField(max_length=200)
    years = models.CharField(max_length=5, default='80')
",
    // A constraint and an index of their own, and a many to many.
    "
class Ward(models.Model):
    name = models.CharField(max_length=20, unique=True)
class Resident(models.Model):
    name = models.CharField(max_length=200)
    years = models.IntegerField(default=80)
    wards = models.ManyToManyField(Ward)
    class Meta:
        constraints = [models.UniqueConstraint(fields=['name'], name='one_name')]
        indexes = [models.Index(fields=['years'])]
",
];

const SETTINGS: &str = "
SECRET_KEY = 'test'
INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'home']
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'rowcast.db'}}
DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'
USE_TZ = True
";

/// Makes a Django project in the gateway's folder.
fn create(folder: &Path) -> Project {
    let app = folder.join("home");
    fs::create_dir_all(app.join("migrations")).unwrap();
    fs::write(app.join("__init__.py"), "").unwrap();
    fs::write(app.join("migrations/__init__.py"), "").unwrap();
    fs::write(folder.join("settings.py"), SETTINGS).unwrap();
    let manage = "import os, sys
os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
";
    fs::write(folder.join("manage.py"), manage).unwrap();
    Project::inside(folder)
}

/// Runs a program with the models at hand.
fn shell(project: &Project, program: &str) {
    project.shell(&format!("from home.models import *\n{program}"));
}

/// Writes the models anew.
fn set(project: &Project, models: &str) {
    let text = format!("from django.db import models\n{models}");
    fs::write(project.folder.join("home/models.py"), text).unwrap();
}

#[tokio::test]
async fn a_real_django_project_migrates_and_writes_under_capture() {
    let folder = tempfile::tempdir().unwrap();
    let project = create(folder.path());
    set(&project, MODELS[0]);
    project.manage(&["makemigrations", "home", "-n", "m0"]);
    project.manage(&["migrate"]);
    shell(
        &project,
        "Ward.objects.create(name='3'); [Resident.objects.create(name=n) for n in 'abc']",
    );
    let init = Command::new(crate::support::server::BINARY)
        .current_dir(folder.path())
        .args(["init", "--database", "sqlite:rowcast.db"])
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    let server = Server::inside(folder, Options::default());
    let topic = "home_resident";
    let mut socket = server.socket("").await;
    let answer = socket
        .ask(json!({"type": topic, "rid": 1, "params": {"all": true}}))
        .await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 3, "{answer}");

    for (n, models) in MODELS.iter().enumerate().skip(1) {
        set(&project, models);
        // Which field was renamed cannot be asked without a terminal.
        let name = format!("m{n}");
        match n {
            3 => rename(&project),
            _ => drop(project.manage(&["makemigrations", "home", "-n", &name, "--noinput"])),
        }
        project.manage(&["migrate"]);
        let reload = |frame: &Json| frame["type"] == topic && frame["op"] == "reload";
        socket.next_where("a reload", reload).await;
        let name = format!("new {n}");
        shell(&project, &format!("Resident.objects.create(name='{name}')"));
        let created = socket
            .next_where("the new row", |frame| frame["data"]["name"] == *name)
            .await;
        assert_eq!(created["op"], "insert");
        shell(
            &project,
            &format!("Resident.objects.filter(name='{name}').update(name='{name}!')"),
        );
        let changed = format!("{name}!");
        let updated = socket
            .next_where("the updated row", |frame| frame["data"]["name"] == *changed)
            .await;
        assert_eq!(updated["op"], "update");
        shell(
            &project,
            &format!(
                "Resident.objects.get(name='{changed}').delete(); Resident.objects.bulk_create([Resident(name='x{n}'), Resident(name='y{n}')])"
            ),
        );
        socket
            .next_where("the deletion", |frame| {
                frame["op"] == "delete" && frame["key"] == created["key"]
            })
            .await;
        socket
            .next_where("the last of many", |frame| {
                frame["data"]["name"] == *format!("y{n}")
            })
            .await;
    }
    // And all the way back.
    project.manage(&["migrate", "home", "0001_m0"]);
    socket
        .next_where("a reload", |frame| {
            frame["type"] == topic && frame["op"] == "reload"
        })
        .await;
    let all = socket
        .ask(json!({"type": topic, "rid": 2, "params": {"all": true}}))
        .await;
    assert_eq!(all["data"].as_array().unwrap().len(), 3 + 2 * 5);
    assert_eq!(all["data"][0]["age"], 80);
}

/// The migration that renames `age`, written by hand.
fn rename(project: &Project) {
    let text = "
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [('home', '0003_m2')]
    operations = [
        migrations.RenameField('resident', 'age', 'years'),
        migrations.AlterUniqueTogether('resident', set()),
    ]
";
    fs::write(project.folder.join("home/migrations/0004_m3.py"), text).unwrap();
    project.manage(&["makemigrations", "home", "--check", "--dry-run"]);
}

#[tokio::test]
async fn a_view_that_lost_its_column_reloads_instead_of_guessing() {
    let config = topics(&[("t", "where = \"age > 80\"")]);
    let server = Server::configured(&config, &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    assert_eq!(follower.view.rows.len(), 2);
    sqlite3(&server.database(), "ALTER TABLE t DROP COLUMN age");
    let reload = |frame: &Json| frame["type"] == "t" && frame["op"] == "reload";
    follower.socket.next_where("a reload", reload).await;
    let answer = follower
        .socket
        .ask(json!({"type": "t", "rid": 1, "id": 1}))
        .await;
    assert_eq!(answer["type"], "sys:error");
    sqlite3(
        &server.database(),
        "ALTER TABLE t ADD COLUMN age INTEGER; UPDATE t SET age = 90",
    );
    follower.socket.next_where("a reload", reload).await;
    follower.sync().await;
    follower.ask_all().await;
    assert_eq!(follower.view.rows.len(), 3);
}
