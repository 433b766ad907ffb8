//! `sprag safety-number`: what two people compare.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::args::SafetyNumberArgs;
use crate::error::{CliError, Exit};
use crate::line::Line;
use crate::output::Output;
use crate::profile::Profile;

pub(super) fn run(
    profile: &Profile,
    args: &SafetyNumberArgs,
    output: &mut Output,
) -> Result<Exit, CliError> {
    let client = &profile.client;
    let number = client
        .safety_number(&args.user)?
        .ok_or_else(|| CliError::NotFound(format!("user {} among those you met", args.user)))?;
    let matches = match &args.scan {
        None => None,
        Some(scanned) => {
            let scanned: String = scanned.chars().filter(|c| !c.is_whitespace()).collect();
            if scanned.len() == number.digits.len() {
                Some(scanned == number.digits)
            } else {
                let code = hex::decode(&scanned).map_err(|_| not_a_code())?;
                client.compare_safety_number(&args.user, &code)?
            }
        }
    };
    if matches.is_none() {
        output.picture(&picture(&number.code))?;
    }
    output.line(&Line::SafetyNumber {
        user: args.user.clone(),
        digits: number.digits.clone(),
        code: hex::encode(&number.code),
        matches,
    })?;
    Ok(match matches {
        Some(false) => Exit::Refused,
        _ => Exit::Ok,
    })
}

fn not_a_code() -> CliError {
    CliError::Usage("what is compared has 60 digits, or is hexadecimal".to_owned())
}

/// A QR code in half blocks: what a scanner takes for paper is drawn, for most terminals are dark.
pub(super) fn picture(code: &[u8]) -> String {
    QrCode::new(code).map_or_else(
        |_| String::new(),
        |code| {
            code.render::<Dense1x2>()
                .dark_color(Dense1x2::Light)
                .light_color(Dense1x2::Dark)
                .build()
        },
    )
}
