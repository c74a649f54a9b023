// Command images prints what the upstream tests call the images that they need: a word of ours and the full name, one a line.
package main

import (
	"fmt"

	"k8s.io/kubernetes/test/utils/image"
)

func main() {
	for _, it := range []struct {
		name  string
		image image.ImageID
	}{
		{"pause", image.Pause},
		{"busybox", image.BusyBox},
		{"iptables", image.DistrolessIptables},
		{"glibc-dns", image.GlibcDnsTesting},
		{"agnhost", image.Agnhost},
		{"agnhost-previous", image.AgnhostPrev},
		{"nginx", image.Nginx},
		{"issue-74839", image.RegressionIssue74839},
		{"nonewprivs", image.Nonewprivs},
	} {
		fmt.Println(it.name, image.GetE2EImage(it.image))
	}
}
