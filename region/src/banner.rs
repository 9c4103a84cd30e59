//! What is printed when a region is up: where everything is, and lines to paste.

use std::fmt::Write as _;

use crate::region::Region;

/// Of no real certificate.
const CERTIFICATE_SHA256: &str = "91:AC:2F:0B:5D:3E:77:18:C4:60:9A:E2:4B:F1:86:35:\
                                  0D:DA:71:2C:A8:53:EF:94:16:BB:68:07:3F:C9:D2:5E";

/// Addresses of a region, its admin token, and commands that make a project and a service token.
#[must_use]
pub fn banner(region: &Region) -> String {
    let rule = "=".repeat(79);
    let stores = region.stores();
    let mut text = format!(
        "{rule}\nA REGION FOR TESTS: all of it on this machine, secrets printed below.\n{rule}\n"
    );
    // Writing to a string cannot fail.
    for (number, node) in region.nodes.iter().enumerate() {
        let (public, admin) = (node.url(""), node.admin_url(""));
        let _ = writeln!(text, "herald {number}   public {public}   admin {admin}");
    }
    for url in &stores.redis {
        let _ = writeln!(text, "redis      {url}");
    }
    for address in &stores.cql {
        let datacenter = &stores.datacenter;
        let _ = writeln!(text, "cql        {address}   data centre {datacenter}");
    }
    let directory = region.place().directory().display();
    let _ = writeln!(text, "data       {directory}");
    if let Some(node) = region.nodes.first() {
        text.push_str(&commands(&node.admin_listen(), &region.admin_token));
    }
    let _ = writeln!(text, "{rule}");
    text
}

fn commands(admin: &str, token: &str) -> String {
    let call = |path: &str, body: &str| {
        format!(
            "curl -s http://{admin}/admin/v1/projects{path} -H \"Authorization: Bearer \
             $HERALD_ADMIN_TOKEN\" -H 'Content-Type: application/json' -d '{body}'\n"
        )
    };
    let project = format!(
        "{{\"project_id\":\"demo\",\"name\":\"Demo\",\"package_name\":\"com.example.app\",\
         \"cert_sha256\":[\"{CERTIFICATE_SHA256}\"]}}"
    );
    format!(
        "\n# make a project and a service token of it, for all nodes\n\
         export HERALD_ADMIN_TOKEN={token}\n{}{}",
        call("", &project),
        call("/demo/service-tokens", "{\"name\":\"demo\"}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_that_a_shell_takes() {
        let text = commands("127.0.0.1:1", "herald_admin_x");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[2], "export HERALD_ADMIN_TOKEN=herald_admin_x");
        for line in &lines[3..] {
            assert!(line.starts_with("curl -s http://127.0.0.1:1/admin/v1/projects"));
            assert_eq!(line.matches('\'').count(), 4, "{line}");
        }
    }
}
