//! `caracal down`: stops a detached stack, draining (`cli.md` 2.2).

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::process::Command as Process;
use std::time::Duration;

use crate::cli::Down;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::{Mark, Style};

/// How long a stack may take to drain, in tenths of a second.
const PATIENCE: u32 = 300;

/// Stops it; nothing running is no failure.
pub(crate) fn run(args: &Down) -> Result<(), Failure> {
    let style = Style::stdout();
    let home = Home::resolve(args.data_dir.as_deref())?;
    if args.volumes && !args.yes && !confirmed(&home)? {
        return Err(Failure::usage("nothing was stopped or removed"));
    }
    match home.holder()? {
        None => println!("{} nothing runs in {}", style.mark(Mark::Info), home.root().display()),
        Some(pid) => {
            // The lock names the process and is held while it lives, so the number is not another's.
            let sent = Process::new("kill").arg("-TERM").arg(pid.to_string()).status();
            if !sent.is_ok_and(|s| s.success()) {
                return Err(Failure::start(format!("cannot signal process {pid}; stop it by hand")));
            }
            let mut left = PATIENCE;
            while home.holder()?.is_some() {
                if left == 0 {
                    return Err(Failure::start(format!("process {pid} did not stop within 30 s")));
                }
                left -= 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            println!("{} stopped process {pid}; its data stays in {}", style.mark(Mark::Done), home.data().display());
        }
    }
    if args.volumes && home.data().exists() {
        let _lock = home.take()?;
        fs::remove_dir_all(home.data()).map_err(|e| Failure::io("remove", &home.data(), &e))?;
        println!("{} removed {}", style.mark(Mark::Done), home.data().display());
    }
    Ok(())
}

fn confirmed(home: &Home) -> Result<bool, Failure> {
    print!("remove {} with every zone, key and entry of evidence? type yes: ", home.data().display());
    let _ = std::io::stdout().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Failure::start(format!("no answer: {e}")))?;
    Ok(line.trim() == "yes")
}
