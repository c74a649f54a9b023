//! Objects as large as the API server sends them, with what the managers of their fields, kubelet and controllers write.

use serde_json::{Value, json};

const MADE: &str = "2025-03-01T08:00:00Z";

/// A pod of a Deployment that runs: two containers, one of them a sidecar.
pub fn pod() -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "<name>",
            "generateName": "<app>-<hash>-",
            "namespace": "<namespace>",
            "uid": "<uid>",
            "resourceVersion": "<version>",
            "generation": 1,
            "creationTimestamp": MADE,
            "labels": {
                "app.kubernetes.io/name": "<app>",
                "app.kubernetes.io/instance": "<app>-<namespace>",
                "app.kubernetes.io/component": "backend",
                "app.kubernetes.io/version": "1.14.2",
                "pod-template-hash": "<hash>",
                "team": "<team>",
            },
            "annotations": {
                "checksum/config": "3f1c0f0a7d2f53a1f1ee7bd2f3d9f4a9a4c1f0c8a5b04f7e9d7d0a7f5c2b1a90",
                "kubectl.kubernetes.io/default-container": "main",
                "kubectl.kubernetes.io/restartedAt": "2025-02-27T19:13:44+01:00",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": "9090",
                "prometheus.io/scrape": "true",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "<app>-<hash>",
                "uid": "5a0cf7a5-7d5e-4e0d-9c3f-<digits>", "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [
                {
                    "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": MADE,
                    "fieldsType": "FieldsV1", "fieldsV1": fields_of_spec(),
                },
                {
                    "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": MADE, "fieldsType": "FieldsV1",
                    "fieldsV1": fields_of_status(), "subresource": "status",
                },
            ],
        },
        "spec": {
            "volumes": [
                { "name": "config", "configMap": { "name": "<app>-config", "defaultMode": 420 } },
                { "name": "scratch", "emptyDir": {} },
                { "name": "kube-api-access-<digits>", "projected": { "defaultMode": 420, "sources": [
                    { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                    { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                    { "downwardAPI": { "items": [{
                        "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                    }] } },
                ] } },
            ],
            "containers": [
                main_container(),
                container("proxy", "metrics", 9090),
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "<app>",
            "serviceAccount": "<app>",
            "nodeName": "<node>",
            "securityContext": { "fsGroup": 1000, "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "schedulerName": "default-scheduler",
            "tolerations": [toleration("not-ready"), toleration("unreachable")],
            "priority": 0,
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "observedGeneration": 1,
            "phase": "Running",
            "conditions": [
                condition("PodReadyToStartContainers", true), condition("Initialized", true), condition("Ready", true),
                condition("ContainersReady", true), condition("PodScheduled", true),
            ],
            "hostIP": "<host>",
            "hostIPs": [{ "ip": "<host>" }],
            "podIP": "<address>",
            "podIPs": [{ "ip": "<address>" }],
            "startTime": MADE,
            "containerStatuses": [container_status("main"), container_status("proxy")],
            "qosClass": "Burstable",
        },
    })
}

/// The same, before a node is found for it.
pub fn pending_pod() -> Value {
    let mut pod = pod();
    pod["spec"].as_object_mut().expect("a spec").remove("nodeName");
    pod["status"] =
        json!({ "phase": "Pending", "conditions": [condition("PodScheduled", false)], "qosClass": "Burstable" });
    pod
}

/// The same, before its containers are there.
pub fn scheduled_pod() -> Value {
    let mut pod = pod();
    pod["status"] = json!({
        "phase": "Pending",
        "conditions": [
            condition("PodReadyToStartContainers", false), condition("Initialized", true), condition("Ready", false),
            condition("ContainersReady", false), condition("PodScheduled", true),
        ],
        "hostIP": "<host>",
        "hostIPs": [{ "ip": "<host>" }],
        "startTime": MADE,
        "containerStatuses": [
            { "name": "main", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ContainerCreating" } } },
            { "name": "proxy", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "ContainerCreating" } } },
        ],
        "qosClass": "Burstable",
    });
    pod
}

/// The same, when it is told to end.
pub fn terminating_pod() -> Value {
    let mut pod = pod();
    pod["metadata"]["deletionTimestamp"] = MADE.into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    pod
}

/// The same, when its containers have ended.
pub fn stopped_pod() -> Value {
    let mut pod = terminating_pod();
    pod["status"]["conditions"][2] = condition("Ready", false);
    pod["status"]["conditions"][3] = condition("ContainersReady", false);
    pod
}

/// A pod that has run to its end: of a Job.
pub fn ended_pod() -> Value {
    let mut pod = stopped_pod();
    pod["metadata"]["ownerReferences"][0]["apiVersion"] = "batch/v1".into();
    pod["metadata"]["ownerReferences"][0]["kind"] = "Job".into();
    pod["status"]["phase"] = "Succeeded".into();
    pod
}

/// How many settings a container has in its environment.
const SETTINGS: usize = 3;

fn container(name: &str, port: &str, number: u16) -> Value {
    json!({
        "name": name,
        "image": format!("registry.example.com/platform/<app>-{name}:1.14.2"),
        "args": ["--config=/etc/app/config.yaml", "--log-level=info"],
        "ports": [{ "name": port, "containerPort": number, "protocol": "TCP" }],
        "resources": { "limits": { "memory": "512Mi" }, "requests": { "cpu": "100m", "memory": "256Mi" } },
        "volumeMounts": [
            { "name": "config", "readOnly": true, "mountPath": "/etc/app" },
            { "name": "kube-api-access-<digits>", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" },
        ],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": { "capabilities": { "drop": ["ALL"] }, "allowPrivilegeEscalation": false },
    })
}

/// The container with the app: it has an environment and probes besides.
fn main_container() -> Value {
    let setting = |number| json!({ "name": format!("SETTING_{number}"), "value": format!("value-{number}-of-<app>") });
    let own =
        json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } } });
    let probe = |path: &str| {
        json!({
            "httpGet": { "path": path, "port": "http", "scheme": "HTTP" },
            "initialDelaySeconds": 5, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        })
    };
    let mut container = container("main", "http", 8080);
    container["env"] = (0..SETTINGS).map(setting).chain([own]).collect();
    (container["livenessProbe"], container["readinessProbe"]) = (probe("/healthz"), probe("/readyz"));
    container
}

fn container_status(name: &str) -> Value {
    json!({
        "name": name,
        "state": { "running": { "startedAt": MADE } },
        "lastState": {},
        "ready": true,
        "restartCount": 0,
        "image": format!("registry.example.com/platform/<app>-{name}:1.14.2"),
        "imageID": format!("registry.example.com/platform/<app>-{name}@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        "containerID": "containerd://2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e88<digits>",
        "started": true,
    })
}

fn toleration(what: &str) -> Value {
    json!({
        "key": format!("node.kubernetes.io/{what}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
    })
}

fn condition(name: &str, holds: bool) -> Value {
    json!({
        "type": name, "observedGeneration": 1, "status": if holds { "True" } else { "False" },
        "lastProbeTime": null, "lastTransitionTime": MADE,
    })
}

/// An object of field names, all of which somebody has set.
fn set(names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>().into()
}

fn fields_of_spec() -> Value {
    let of_container =
        || set(&[".", "f:args", "f:image", "f:imagePullPolicy", "f:name", "f:ports", "f:resources", "f:volumeMounts"]);
    let mut main = of_container();
    let env =
        (0..SETTINGS).map(|number| (format!("k:{{\"name\":\"SETTING_{number}\"}}"), set(&[".", "f:name", "f:value"])));
    main["f:env"] = env.collect::<serde_json::Map<_, _>>().into();
    let probe = ["f:failureThreshold", "f:httpGet", "f:periodSeconds", "f:successThreshold", "f:timeoutSeconds"];
    (main["f:livenessProbe"], main["f:readinessProbe"]) = (set(&probe), set(&probe));
    let mut spec = set(&[
        "f:dnsPolicy",
        "f:enableServiceLinks",
        "f:restartPolicy",
        "f:schedulerName",
        "f:securityContext",
        "f:serviceAccount",
        "f:serviceAccountName",
        "f:terminationGracePeriodSeconds",
    ]);
    spec["f:containers"] = json!({ "k:{\"name\":\"main\"}": main, "k:{\"name\":\"proxy\"}": of_container() });
    json!({
        "f:metadata": {
            "f:annotations": set(&[".", "f:checksum/config", "f:prometheus.io/path", "f:prometheus.io/port", "f:prometheus.io/scrape"]),
            "f:generateName": {},
            "f:labels": set(&[".", "f:app.kubernetes.io/name", "f:app.kubernetes.io/instance", "f:pod-template-hash", "f:team"]),
            "f:ownerReferences": { ".": {}, "k:{\"uid\":\"5a0cf7a5-7d5e-4e0d-9c3f-<digits>\"}": {} },
        },
        "f:spec": spec,
    })
}

fn fields_of_status() -> Value {
    let condition = set(&[".", "f:lastProbeTime", "f:lastTransitionTime", "f:status", "f:type"]);
    let types = ["ContainersReady", "Initialized", "PodReadyToStartContainers", "Ready"];
    let conditions = types.map(|name| (format!("k:{{\"type\":\"{name}\"}}"), condition.clone()));
    json!({ "f:status": {
        "f:conditions": conditions.into_iter().collect::<serde_json::Map<_, _>>(),
        "f:containerStatuses": {}, "f:hostIP": {}, "f:hostIPs": {}, "f:phase": {}, "f:podIP": {},
        "f:podIPs": { ".": {}, "k:{\"ip\":\"<address>\"}": set(&[".", "f:ip"]) },
        "f:startTime": {},
    } })
}

/// A node with fifty images.
pub fn node() -> Value {
    let image = |number: usize| {
        let name = format!("registry.example.com/platform/team-{number}/service-{number}");
        let digest = format!("{number:02x}").repeat(32);
        json!({ "names": [format!("{name}@sha256:{digest}"), format!("{name}:1.{number}.2")], "sizeBytes": 91_234_567 + number })
    };
    let resources = json!({
        "cpu": "16", "ephemeral-storage": "209702892Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0", "memory": "65022436Ki", "pods": "110",
    });
    let condition = |name: &str, holds: bool, reason: &str| {
        json!({
            "type": name, "status": if holds { "True" } else { "False" }, "lastHeartbeatTime": MADE, "lastTransitionTime": MADE,
            "reason": reason, "message": format!("kubelet has said so: {reason}"),
        })
    };
    let fields = json!({
        "f:metadata": {
            "f:annotations": set(&[".", "f:csi.volume.kubernetes.io/nodeid", "f:volumes.kubernetes.io/controller-managed-attach-detach"]),
            "f:labels": set(&[
                ".", "f:beta.kubernetes.io/arch", "f:beta.kubernetes.io/os", "f:kubernetes.io/arch", "f:kubernetes.io/hostname",
                "f:kubernetes.io/os", "f:node.kubernetes.io/instance-type", "f:topology.kubernetes.io/zone",
            ]),
        },
        "f:spec": { "f:providerID": {}, "f:podCIDR": {}, "f:podCIDRs": { ".": {}, "v:\"<cidr>\"": {} } },
    });
    json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": "<name>",
            "uid": "<uid>",
            "resourceVersion": "<version>",
            "creationTimestamp": MADE,
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/instance-type": "m-16",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": "<name>",
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "m-16",
                "node.example.com/pool": "general",
                "topology.csi.example.com/zone": "<zone>",
                "topology.kubernetes.io/region": "region-1",
                "topology.kubernetes.io/zone": "<zone>",
            },
            "annotations": {
                "csi.volume.kubernetes.io/nodeid": "{\"csi.example.com\":\"<name>\"}",
                "node.alpha.kubernetes.io/ttl": "30",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            "managedFields": [{
                "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": MADE, "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }],
        },
        "spec": { "podCIDR": "<cidr>", "podCIDRs": ["<cidr>"], "providerID": "example://region-1/<name>" },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
                condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
                condition("PIDPressure", false, "KubeletHasSufficientPID"),
                condition("Ready", true, "KubeletReady"),
            ],
            "addresses": [{ "type": "InternalIP", "address": "<host>" }, { "type": "Hostname", "address": "<name>" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "nodeInfo": {
                "machineID": "ec2d9a1f6f6c4f8f9f0a4d0b<digits>", "systemUUID": "ec2d9a1f-6f6c-4f8f-9f0a-<digits>",
                "bootID": "b7f2f4c1-9f52-4b9e-8a6d-<digits>", "kernelVersion": "6.12.0-1-amd64",
                "osImage": "Debian GNU/Linux 13 (trixie)", "containerRuntimeVersion": "containerd://2.1.4",
                "kubeletVersion": "v1.34.1", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
                "swap": { "capacity": 0 },
            },
            "images": (0..50).map(image).collect::<Vec<_>>(),
            "volumesInUse": ["kubernetes.io/csi/csi.example.com^vol-<digits>"],
            "volumesAttached": [{ "name": "kubernetes.io/csi/csi.example.com^vol-<digits>", "devicePath": "" }],
            "runtimeHandlers": [{ "name": "runc", "features": { "recursiveReadOnlyMounts": true, "userNamespaces": true } }],
            "features": { "supplementalGroupsPolicy": true },
        },
    })
}

/// A namespace.
pub fn namespace() -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": "<name>", "uid": "<uid>", "resourceVersion": "<version>", "creationTimestamp": MADE,
            "labels": { "kubernetes.io/metadata.name": "<name>", "team": "<team>" },
            "managedFields": [{
                "manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": MADE, "fieldsType": "FieldsV1",
                "fieldsV1": { "f:metadata": { "f:labels": set(&[".", "f:kubernetes.io/metadata.name", "f:team"]) } },
            }],
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    })
}

/// A Service with two ports.
pub fn service() -> Value {
    let spec = json!({
        "ports": [
            { "name": "http", "protocol": "TCP", "port": 80, "targetPort": "http" },
            { "name": "metrics", "protocol": "TCP", "port": 9090, "targetPort": "metrics" },
        ],
        "selector": { "app.kubernetes.io/instance": "<app>-<namespace>", "app.kubernetes.io/name": "<app>" },
        "clusterIP": "<address>",
        "clusterIPs": ["<address>"],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    });
    let fields = set(&["f:internalTrafficPolicy", "f:selector", "f:sessionAffinity", "f:type", "f:ports"]);
    json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {
            "name": "<app>", "namespace": "<namespace>", "uid": "<uid>", "resourceVersion": "<version>", "creationTimestamp": MADE,
            "labels": {
                "app.kubernetes.io/name": "<app>", "app.kubernetes.io/instance": "<app>-<namespace>",
                "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "<app>-3.2.1",
            },
            "annotations": {
                "meta.helm.sh/release-name": "<app>", "meta.helm.sh/release-namespace": "<namespace>",
                "prometheus.io/port": "9090", "prometheus.io/scrape": "true",
            },
            "managedFields": [{
                "manager": "helm", "operation": "Update", "apiVersion": "v1", "time": MADE, "fieldsType": "FieldsV1",
                "fieldsV1": { "f:spec": fields, "f:metadata": { "f:labels": set(&[".", "f:app.kubernetes.io/name", "f:helm.sh/chart"]) } },
            }],
        },
        "spec": spec,
        "status": { "loadBalancer": {} },
    })
}

/// What reserves the address of a Service: the API server makes one anew where it finds none.
pub fn reservation() -> Value {
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": "<address>", "uid": "<uid>", "creationTimestamp": MADE,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": "<namespace>", "name": "<app>" } },
    })
}

/// The EndpointSlice of a Service.
pub fn slice() -> Value {
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": "<app>-x7k2p", "generateName": "<app>-", "namespace": "<namespace>", "uid": "<uid>",
            "resourceVersion": "<version>", "generation": 7, "creationTimestamp": MADE,
            "labels": {
                "app.kubernetes.io/name": "<app>", "app.kubernetes.io/instance": "<app>-<namespace>",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "<app>",
            },
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": MADE },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "<app>", "uid": "<uid>", "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": [{
                "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "discovery.k8s.io/v1", "time": MADE,
                "fieldsType": "FieldsV1",
                "fieldsV1": { "f:addressType": {}, "f:endpoints": {}, "f:ports": {}, "f:metadata": {
                    "f:annotations": set(&[".", "f:endpoints.kubernetes.io/last-change-trigger-time"]), "f:generateName": {},
                    "f:labels": set(&[".", "f:endpointslice.kubernetes.io/managed-by", "f:kubernetes.io/service-name"]),
                } },
            }],
        },
        "addressType": "IPv4",
        "endpoints": "<*endpoints*>",
        "ports": [
            { "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "metrics", "port": 9090, "protocol": "TCP" },
        ],
    })
}

/// One of its endpoints.
pub fn endpoint() -> Value {
    json!({
        "addresses": ["<address>"],
        "conditions": { "ready": true, "serving": true, "terminating": false },
        "targetRef": { "kind": "Pod", "namespace": "<namespace>", "name": "<name>", "uid": "<uid>" },
        "nodeName": "<node>",
        "zone": "<zone>",
    })
}

/// A policy that lets an app be asked by the next one of its namespace, and by those of a team.
pub fn policy() -> Value {
    let of_app = |gap: &str| json!({ "matchLabels": { "app.kubernetes.io/name": gap } });
    json!({
        "kind": "NetworkPolicy",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": "<app>", "namespace": "<namespace>", "uid": "<uid>", "resourceVersion": "<version>", "generation": 1,
            "creationTimestamp": MADE,
            "managedFields": [{
                "manager": "helm", "operation": "Update", "apiVersion": "networking.k8s.io/v1", "time": MADE, "fieldsType": "FieldsV1",
                "fieldsV1": { "f:spec": set(&["f:ingress", "f:podSelector", "f:policyTypes"]) },
            }],
        },
        "spec": {
            "podSelector": of_app("<app>"),
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [
                    { "podSelector": of_app("<next>") },
                    { "namespaceSelector": { "matchLabels": { "team": "<team>" } }, "podSelector": of_app("<app>") },
                ],
                "ports": [{ "protocol": "TCP", "port": "http" }],
            }],
        },
    })
}
