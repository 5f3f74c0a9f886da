use rov_tests::devtools::DevTools;
use rov_tests::programs::Server;
use rov_tests::wait;
fn main() {
    let mut server = Server::start(&[]);
    let port = server.address.port().to_string();
    let mut c = DevTools::start();
    let page = c.open(&server.url("/"));
    c.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    c.evaluate(&page, "globalThis.log=[]; globalThis.t0=performance.now(); new MutationObserver(()=>log.push([Math.round(performance.now()-t0), document.body.dataset.state, document.body.className, document.getElementById('reason').textContent, document.getElementById('title').textContent])).observe(document.body,{attributes:true,subtree:true,childList:true,characterData:true}); 0");
    server.process.kill();
    std::thread::sleep(std::time::Duration::from_millis(4500));
    let t = c.evaluate(&page, "performance.now()-t0");
    println!("restart at {t}");
    let s = Server::start(&["--signal-port", &port]);
    let t = c.evaluate(&page, "performance.now()-t0");
    println!("listens at {t}");
    std::thread::sleep(std::time::Duration::from_millis(4000));
    let l = c.evaluate(&page, "log");
    let mut last = String::new();
    for e in l.as_array().unwrap() { let k = format!("{} {} {} {}", e[1], e[2], e[3], e[4]); if k != last { println!("{e}"); last = k; } }
    println!("{:?}", s.stats().viewers.len());
}
