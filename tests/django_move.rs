//! The tutorial's project moves to Rowcast as examples/django/README.md says, with its own files
//! and the page's own text.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value as Json, json};

use crate::support::{Options, Project, Server, Socket, server::BINARY, sqlite3};

const PATIENTS: &str = "all_patient_page_data";
const VISITS: &str = "all_active_visit_data";

/// Where the project is in this repository.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/django")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The first fenced block of this kind on the page.
fn block(kind: &str) -> String {
    let page = fs::read_to_string(example().join("README.md")).unwrap();
    let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Step 1: the project on its SQLite database, and a gateway on the topics of the page.
fn moved() -> (Project, Server) {
    let folder = tempfile::tempdir().unwrap();
    copy(&example(), folder.path());
    let mut project = Project::inside(folder.path());
    project.manage(&["migrate"]);
    project.shell(
        "from chat.models import *
Visit.objects.create(patient=Patient.objects.create(name='王秀英', age=86), visitor='王芳')",
    );
    let init = Command::new(BINARY)
        .current_dir(folder.path())
        .args(["init", "--database", "sqlite:db.sqlite3"])
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    let path = folder.path().join("rowcast.toml");
    let written = fs::read_to_string(&path).unwrap();
    let live = written.lines().filter(|line| line.starts_with("table = "));
    assert_eq!(
        live.collect::<Vec<_>>(),
        ["table = \"chat_patient\"", "table = \"chat_visit\""],
        "{written}"
    );
    let (head, _) = written.split_once("[database]").unwrap();
    let database = "[database]\nurl = \"sqlite:db.sqlite3\"\n";
    fs::write(&path, [head, database, &block("toml")].concat()).unwrap();
    let server = Server::inside(folder, Options::default());
    project
        .env
        .push(("ROWCAST_URL", format!("http://{}", server.address())));
    (project, server)
}

#[test]
fn the_configuration_that_the_example_runs_with_is_the_one_of_its_page() {
    let written = fs::read_to_string(example().join("after/rowcast.toml")).unwrap();
    assert!(written.ends_with(&block("toml")), "{written}");
}

/// Step 4, to its end.
fn delete_the_calls(project: &Project) {
    let views = project.folder.join("chat/views.py");
    let text = fs::read_to_string(&views).unwrap();
    let kept = text
        .lines()
        .filter(|line| !line.contains("AllDataConsumersUpdate") && !line.contains("update.all_"));
    fs::write(&views, kept.collect::<Vec<_>>().join("\n")).unwrap();
    fs::remove_file(project.folder.join("chat/update.py")).unwrap();
}

/// What a browser of the tutorial does: one socket at the same path, a frame for each type.
async fn browser(server: &Server) -> Socket {
    let mut socket = server.socket("").await;
    for topic in [PATIENTS, VISITS] {
        socket.send(json!({ "type": topic })).await;
        let reply = socket.next_of(topic).await;
        assert_eq!(reply["data"].as_array().unwrap().len(), 1, "{reply}");
    }
    socket
}

/// Waits for a page of this topic for which that holds.
async fn page(socket: &mut Socket, topic: &str, holds: impl Fn(&[Json]) -> bool) {
    let wanted = |frame: &Json| {
        frame["type"] == topic
            && frame["op"] == "replace"
            && holds(frame["data"].as_array().unwrap())
    };
    socket.next_where(topic, wanted).await;
}

#[tokio::test]
async fn the_tutorials_project_runs_with_the_shim_and_its_views_as_they_were() {
    let (project, server) = moved();
    let mut socket = browser(&server).await;
    let post = |path: &str| {
        project.shell(&format!(
            "from django.test import Client
answer = Client(HTTP_HOST='127.0.0.1').post('{path}')
print(answer.status_code, answer.json()['msg'])"
        ))
    };
    assert!(post("/chat/update/info/").contains("200 更新数据成功"));
    page(&mut socket, PATIENTS, |rows| rows.len() == 2).await;
    assert!(post("/chat/update/record/").contains("200 更新数据成功"));
    page(&mut socket, VISITS, |rows| {
        rows.len() == 2 && rows[0]["visitor"] == "来访人"
    })
    .await;
}

#[tokio::test]
async fn the_shim_pushes_after_the_commit_and_never_what_was_rolled_back() {
    let (project, server) = moved();
    // No row is changed here, so that only the shim can be the reason of a page; and nothing is
    // asked, for whoever has just read a page gets no other like it.
    let mut socket = server.socket("").await;
    let shell = |program: &str| {
        project.shell(&format!(
            "from chat.update import AllDataConsumersUpdate
from django.db import transaction
update = AllDataConsumersUpdate()
{program}"
        ))
    };
    shell("update.all_patient_page_data()");
    page(&mut socket, PATIENTS, |rows| rows.len() == 1).await;
    shell(
        "with transaction.atomic():
    update.all_patient_page_data()
    transaction.set_rollback(True)
with transaction.atomic():
    update.all_active_visit_data()",
    );
    let first = socket.next_where("a page", |_| true).await;
    assert_eq!(first["type"], VISITS);
}

#[tokio::test]
async fn a_gateway_that_is_away_fails_no_view() {
    let (project, mut server) = moved();
    server.kill();
    project.shell("from chat.update import *; AllDataConsumersUpdate().all_patient_page_data()");
}

#[tokio::test]
async fn without_the_shim_bulk_updates_scripts_and_plain_sql_are_pushed_as_well() {
    let (project, server) = moved();
    delete_the_calls(&project);
    let mut socket = browser(&server).await;
    project.shell("from chat.models import *; Patient.objects.filter(age=86).update(ward='5')");
    page(&mut socket, PATIENTS, |rows| rows[0]["ward"] == "5").await;
    project.shell(
        "from chat.models import *; Patient.objects.bulk_create([Patient(name=n) for n in 'ab'])",
    );
    page(&mut socket, PATIENTS, |rows| rows.len() == 3).await;
    project.manage(&["end_visits"]);
    page(&mut socket, VISITS, <[Json]>::is_empty).await;
    sqlite3(
        &project.folder.join("db.sqlite3"),
        "UPDATE chat_visit SET left_at = NULL",
    );
    page(&mut socket, VISITS, |rows| rows.len() == 1).await;
}
