//! Help, completions, colours and pipes: everything that needs no server.

use std::process::Stdio;

use tokio::{io::AsyncReadExt as _, process::Command};

use crate::support::{Ran, run, yadtq};

const COMMANDS: [&str; 17] = [
    "submit",
    "status",
    "result",
    "revoke",
    "workers",
    "queues",
    "pause",
    "resume",
    "purge",
    "disable",
    "enable",
    "controls",
    "dlq",
    "scheduled",
    "periodic",
    "ping",
    "completions",
];

async fn of(args: &[&str]) -> Ran {
    run(yadtq().args(args), "").await
}

#[tokio::test]
async fn help_lists_the_commands_and_the_exit_codes() {
    let help = of(&["--help"]).await.exits(0).quietly().stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(
        list,
        "  submit       Send a task and print its id
  status       Show the state of a task
  result       Print the result of a task, as JSON
  revoke       Revoke a task: a waiting task will not run, a running task is asked to stop
  workers      List the live workers
  queues       List the queues, and how many tasks wait in each
  pause        Pause a queue: workers take no tasks from it until it is resumed
  resume       Resume a paused queue: workers take tasks from it again
  purge        Revoke all tasks that wait in a queue, and notify their callers
  disable      Disable a task: no task of this name runs, in any queue, until it is enabled
  enable       Enable a disabled task: tasks of this name run again
  controls     List the controls in effect: paused queues, disabled tasks, purges
  dlq          List, replay and purge dead letters: tasks that failed for good or could not be run
  scheduled    List tasks that wait for their due time or a retry; run them now, or cancel them
  periodic     List the periodic tasks that workers declare, with their next and last runs
  ping         Check the connection to Kafka and Redis, and warn about settings that endanger tasks
  completions  Print a completion script for a shell
  help         Print this message or the help of the given subcommand(s)"
    );
    let codes: Vec<_> = help.split("Exit codes:\n").nth(1).unwrap().lines().map(|line| &line[..5]).collect();
    assert_eq!(codes, ["  0  ", "  1  ", "  2  ", "  3  ", "  4  ", "  5  ", "  6  "]);
}

#[tokio::test]
async fn help_of_each_command_has_examples_and_no_secrets() {
    for command in COMMANDS {
        let mut run_help = yadtq();
        run_help.env("YADTQ_REDIS", "redis://:secret@localhost").args([command, "--help"]);
        let help = run(&mut run_help, "").await.exits(0).quietly().stdout;
        assert!(help.contains(&format!("Examples:\n  yadtq {command}")), "{help}");
        assert!(!help.contains("secret"), "{help}");
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for args in [&[][..], &["frobnicate"], &["status"], &["status", ""], &["ping", "--nope"]] {
        of(args).await.exits(2).prints("");
    }
    let unit = of(&["result", "x", "--wait", "--timeout", "3 parsecs"]).await.exits(2);
    unit.mentions("unknown time unit");
    of(&["--version"]).await.exits(0).prints(concat!("yadtq ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = of(&["completions", shell]).await.exits(0).quietly().stdout;
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}: {script}");
    }
    of(&["completions", "tcsh"]).await.exits(2).mentions("possible values: bash");
}

#[tokio::test]
async fn colours_only_where_they_belong() {
    let coloured = |name: &'static str, value: &'static str| async move {
        let mut command = yadtq();
        command.env(name, value).args(["ping", "--kafka", "embedded"]);
        run(&mut command, "").await.exits(2).stderr.contains('\u{1b}')
    };
    assert!(coloured("CLICOLOR_FORCE", "1").await);
    assert!(!coloured("NO_COLOR", "1").await);
    assert!(!coloured("TERM", "xterm-256color").await, "stderr is no terminal here");
}

#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    let mut command = yadtq();
    command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The script is larger than a pipe holds, so the command is still writing now.
    child.stdout.take().unwrap().read_u8().await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_reported() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = yadtq();
    command.args(["completions", "bash"]).stdout(full).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(6));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: cannot write the output: No space left"), "{stderr}");
}

#[cfg(unix)]
#[tokio::test]
async fn closed_streams_cause_no_panic() {
    for redirections in [">&-", "2>&-", ">&- 2>&-", "<&-"] {
        for command in ["completions bash", "ping --kafka embedded", "submit add --args-json -"] {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("\"$0\" {command} {redirections}")).arg(env!("CARGO_BIN_EXE_yadtq"));
            let ran = run(&mut shell, "").await;
            assert!(ran.code < 101, "{command} {redirections}: {ran:?}");
        }
    }
}
