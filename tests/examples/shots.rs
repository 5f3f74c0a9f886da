use rov_tests::devtools::DevTools;
use rov_tests::programs::Server;
use rov_tests::wait;
use serde_json::json;
fn main() {
    let out = std::env::args().nth(1).unwrap();
    let video = std::env::args().nth(2).unwrap();
    let mut server = Server::start(&["--name", "rov1", "--source", "file", "--file", &video, "--width", "1280", "--height", "720"]);
    server.wait_until_running();
    let mut c = DevTools::start();
    let page = c.open(&server.url("/"));
    c.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    let mut shot = |c: &mut DevTools, name: &str, w: u32, h: u32, s: f64| {
        c.call(Some(&page), "Emulation.setDeviceMetricsOverride", json!({"width": w, "height": h, "deviceScaleFactor": s, "mobile": s > 1.0}));
        std::thread::sleep(std::time::Duration::from_millis(700));
        let r = c.call(Some(&page), "Page.captureScreenshot", json!({"format":"png"}));
        std::fs::write(format!("{out}/{name}.b64"), r["data"].as_str().unwrap()).unwrap();
    };
    let sizes = [("desktop", 1280, 800, 1.0), ("phone", 390, 844, 3.0), ("landscape", 844, 390, 3.0)];
    for (n, w, h, s) in sizes { shot(&mut c, &format!("live-{n}"), w, h, s); }
    c.evaluate(&page, "document.getElementById('show-info').click()");
    std::thread::sleep(std::time::Duration::from_millis(3000));
    for (n, w, h, s) in sizes { shot(&mut c, &format!("info-{n}"), w, h, s); }
    c.evaluate(&page, "document.getElementById('show-info').click()");
    server.process.kill();
    std::thread::sleep(std::time::Duration::from_millis(3500));
    for (n, w, h, s) in sizes { shot(&mut c, &format!("old-{n}"), w, h, s); }
    let page2 = c.open(&Server::start(&["--max-viewers","1"]).url("/"));
    let _ = page2;
}
